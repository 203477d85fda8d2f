"""A program and a scenario that fail, for tests of what commands say of it."""

LOST_UPDATE = """\
def lost(k):
    x = k.cell("x")
    async def increment():
        value = await x.load()
        await x.store(value + 1)
    k.spawn("a", increment)
    k.spawn("b", increment)
    k.at_end(lambda: x.value == 2)
"""
REF_KEPT = """
max_steps = 6000
host.pages = 200
mutants = ["run-ref-kept"]
[[guest]]
name = "g1"
memory = "512K"
vcpus = 1
workloads = ["touch"]
"""
