"""The subcommands of `vkemu`, one module each: `add_arguments(parser)` and `run(args)`."""
