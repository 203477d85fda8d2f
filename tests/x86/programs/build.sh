#!/bin/sh
# Builds the ELFs that the scenarios use. usage: build.sh OUTPUT-FOLDER, from the repository's root.
# What it gives depends on the compiler: the checked-in ones name theirs in .comment.
set -eu
out=$1
here=tests/x86/programs
for source in "$here"/*.c; do
	name=$(basename "$source" .c)
	${CC:-gcc} -O1 -g1 -gdwarf-4 -static -nostdlib -ffreestanding -fno-pie -no-pie -fno-builtin \
	    -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
	    -fno-strict-aliasing -Wall -Wno-main -fdebug-prefix-map="$PWD"=. \
	    -Wl,--build-id=none -Wl,-z,norelro -Wl,-z,noseparate-code -Wl,-z,noexecstack \
	    -o "$out/$name.elf" "$source"
done
