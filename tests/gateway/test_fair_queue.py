"""The queue in front of a provider's slots is shared by weight, whatever is queued, in whatever order it comes."""

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.gateway.routing.fairness import FairQueue
from penstock.gateway.routing.reserves import lay_out


def filled(**apps: tuple[int, int]) -> FairQueue[tuple[str, int]]:
    """A queue with so many items of each app, and its weight."""
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for app, (count, weight) in apps.items():
        for number in range(count):
            queue.add(app, weight, (app, number))
    return queue


def served(queue: FairQueue[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """What comes out."""
    return [queue.serve(queue.next_app()) for _ in range(count)]


def test_one_request_of_a_quiet_app_waits_behind_at_most_one_of_a_thousand() -> None:
    queue = filled(batch=(1000, 1))
    served(queue, 500)
    queue.add("interactive", 1, ("interactive", 0))
    assert ("interactive", 0) in served(queue, 2)


def test_weights_of_three_to_one_are_served_three_to_one() -> None:
    queue = filled(heavy=(400, 3), light=(400, 1))
    for _ in range(10):
        counts = Counter(app for app, _ in served(queue, 40))
        assert (counts["heavy"], counts["light"]) == (30, 10)


def test_who_stayed_away_gathers_no_claim_and_who_comes_back_at_once_gains_nothing() -> None:
    queue = filled(batch=(1000, 1), other=(300, 1))
    served(queue, 600)
    assert "other" not in queue
    for number in range(50):
        queue.add("other", 1, ("other", number))
    assert Counter(app for app, _ in served(queue, 20)) == {"batch": 10, "other": 10}
    queue = filled(batch=(1000, 1))
    for number in range(20):  # one at a time, each as soon as the last is served
        queue.add("eager", 1, ("eager", number))
        served(queue, 2)
    assert queue.first("batch") == ("batch", 20)


def test_what_is_not_counted_or_gives_up_costs_nothing() -> None:
    queue = filled(a=(100, 1), b=(100, 1))
    for _ in range(30):
        queue.serve("a", counted=False)
    for number in range(30, 50):
        queue.drop("a", ("a", number))
    queue.drop("a", ("a", 0))
    queue.drop("nobody", ("a", 1))
    assert len(queue) == 150
    assert Counter(app for app, _ in served(queue, 40)) == {"a": 20, "b": 20}


def test_a_full_queue_gives_up_the_newest_of_the_app_that_holds_most_of_it() -> None:
    queue = filled(batch=(10, 1))
    assert queue.yields_to("batch", 1) is None
    queue.add("light", 1, ("light", 0))
    assert queue.yields_to("light", 1) == ("batch", 9)
    # By weight: ten at weight 5 are as two at weight 1.
    queue = filled(batch=(10, 5), light=(2, 1))
    assert queue.yields_to("light", 1) is None
    assert queue.yields_to("batch", 5) is None
    assert queue.yields_to("third", 1) == ("batch", 9)
    assert filled().yields_to("any", 1) is None


def test_whoever_is_gone_is_forgotten() -> None:
    queue = filled(batch=(5000, 1))
    for number in range(2000):
        queue.add(f"app-{number}", 1, ("x", number))
        served(queue, 2)
    assert len(queue._gone) <= 300
    served(queue, len(queue))
    assert (len(queue), queue._gone, queue._apps) == (0, {}, {})


APPS = st.sampled_from("abcd")
STEPS = st.lists(st.tuples(st.sampled_from(["add", "add", "serve", "drop", "make room"]), APPS), max_size=200)


@given(steps=STEPS, weights=st.fixed_dictionaries({app: st.integers(1, 100) for app in "abcd"}))
@settings(max_examples=200, deadline=None)
def test_in_any_order_the_queue_serves_whenever_something_waits_and_within_an_app_first_come_first_served(
    steps: list[tuple[str, str]], weights: dict[str, int]
) -> None:
    queue: FairQueue[int] = FairQueue()
    waiting: dict[str, list[int]] = defaultdict(list)
    for number, (step, app) in enumerate(steps):
        if step == "add":
            queue.add(app, weights[app], number)
            waiting[app].append(number)
        elif step == "serve" and len(queue):
            turn = queue.next_app()
            assert queue.serve(turn) == waiting[turn].pop(0)
        elif step == "drop" and waiting[app]:
            queue.drop(app, waiting[app].pop(number % len(waiting[app])))
        elif step == "make room" and (gone := queue.yields_to(app, weights[app])) is not None:
            loser = next(name for name, items in waiting.items() if items[-1:] == [gone])
            assert len(waiting[loser]) / weights[loser] > (len(waiting[app]) + 1) / weights[app]
            waiting[loser].pop()
        assert len(queue) == sum(map(len, waiting.values()))
        assert all((name in queue) == bool(items) for name, items in waiting.items())


@given(
    weights=st.lists(st.integers(1, 100), min_size=2, max_size=5),
    warm=st.integers(0, 60),
    rounds=st.integers(1, 300),
)
@settings(max_examples=200, deadline=None)
def test_between_two_apps_that_both_wait_unfairness_is_bounded_by_one_request_of_each(
    weights: list[int], warm: int, rounds: int
) -> None:
    apps = {f"app-{number}": weight for number, weight in enumerate(weights)}
    late = f"app-{len(weights) - 1}"
    queue = filled(**{app: (400, weight) for app, weight in apps.items() if app != late})
    served(queue, warm)  # the last one comes when the others have waited for a while
    for number in range(400):
        queue.add(late, apps[late], (late, number))
    counts = Counter(app for app, _ in served(queue, rounds))
    for a, weight_a in apps.items():
        for b, weight_b in apps.items():
            gap = abs(counts[a] / weight_a - counts[b] / weight_b)
            assert gap <= 1 / weight_a + 1 / weight_b + 1e-9


@given(count=st.integers(1, 300), reserves=st.dictionaries(st.text("abc", max_size=3), st.integers(0, 100), max_size=8))
@settings(max_examples=200, deadline=None)
def test_slots_are_shared_out_without_overlap_and_one_at_least_is_for_all(count: int, reserves: dict[str, int]) -> None:
    layout = lay_out(count, reserves)
    slots = [slot for own in layout.own.values() for slot in own] + [*layout.common]
    assert sorted(slots) == [*range(count)]
    assert len(layout.common) >= 1
    wants = {app: -(-count * percent // 100) for app, percent in reserves.items() if percent}
    sizes = {app: len(layout.own.get(app, ())) for app in wants}
    if sum(wants.values()) < count:
        assert sizes == wants
    else:  # cut down in turn: nobody lacks a slot while another has two more
        assert len(layout.common) == 1
        assert all(sizes[b] <= sizes[a] + 1 for a in wants for b in wants if sizes[a] < wants[a])
    assert lay_out(count, dict(reversed(reserves.items()))) == layout
