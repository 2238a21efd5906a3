"""The words of the page."""

from benchmarks.placement.instance import Setting

TITLES = {Setting.FREE: "All bookings known at once", Setting.PROMISED: "Bookings come one by one"}
EXPLAINED = {
    Setting.FREE: """\
Weight is priority (1, 2 or 4) times GPU-hours. The first three decide when a booking starts and know
nothing of what comes: the largest first and a random node with room (NDIF's way); by priority and size, the
tightest node; by the order of booking, the first node. *Look ahead* knows everything, goes by weight, the
heaviest first, and takes the first node that is free for the whole window. *Ours, in turn* is the planner
as it admits what it finds all at once: by priority, then by the order of booking. *Ours* packs by weight
(`benchmarks/placement/packing.py`), in several orders, each where it takes the fewest GPUs: what could be
placed if weight alone decided. The daemon does not: who booked first would have to make way.""",
    Setting.PROMISED: """\
Weight is GPU-hours, all priorities are alike. Each booking is answered when it is booked, 72 hours before
its start in the mean, and no answer is taken back. The first three fix the node then, by the same three
rules; *ours* may still move what has not started.""",
}
ABOUT_TIME = """\
At a load of 100 %, for the whole instance. The machine had other work, so targets are held against processor
time, in which verdicts and slots are told, too; *clock* is what passed meanwhile. *Memory* is the most that
was added while it ran, each in a process of its own. The next slot is looked for when everything is booked.
*Late* are placed bookings whose room was not free for as long before their start as loading takes (30 s and
200 MiB/s), *by* how much in the mean; who decides at the start is always late."""
ABOUT_PLANS = """\
`make_plan`, the function that `plan` and the daemon call, at a load of 100 %: resolving, admission,
schedule, verdicts with their explanations, differences. *One event changed*: the plan after it, which
starts from what was promised before, from what runs, and from what the planner remembers of the plan
before, which makes it no other plan (a test compares them byte for byte). *Nothing changed*: the same ten
seconds later. Processor time, medians."""
INTRODUCTION = """\
# Benchmarks: placement

How much of what is asked for is placed, against an upper bound, by our planner and by others. Written by
`{command}` (needs the extra `bench`), {machine}.

**Instances.** *synthetic*: a week of bookings on nodes with 1, 2, 4 and 8 GPUs of 24 to 141 GB; models as
they are published, 40 % of them small ones that share a GPU, the rest asking for 1 to 8 whole ones; windows
on quarter-hours, an hour to the whole week. *openb* and *philly*: real traces, `benchmarks/data/README.md`
says how their jobs become bookings. Load is GPU-hours asked for over GPU-hours there are. Same seed, same
instance.

**Bound.** The linear relaxation by class of nodes, solved by HiGHS and proven by its dual prices, which are
summed up anew in our own arithmetic: no policy can place more. It lets bookings be cut into parts, so
nobody reaches it.

**Check.** Every placement is replayed GPU by GPU by a checker that knows no policy; none here overbooks any
GPU at any instant, moves what runs, or breaks a promise unless a column says so."""
