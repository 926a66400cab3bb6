import torch

from autospine.system.cards import Card, able_to_train

GIB = 1024**3


def card(total=24.0, free=24.0, capability=(8, 9), index=0, name="RTX 4090") -> Card:
    return Card(
        device=torch.device("cuda", index),
        name=name,
        total_bytes=int(total * GIB),
        free_bytes=int(free * GIB),
        capability=capability,
    )


def test_a_free_card_is_planned_to_93_percent():
    amount, reason = card(23.6, 23.2).budget
    assert amount == int(0.93 * int(23.6 * GIB))
    assert "93% of the 23.6 GiB of RTX 4090, of which 0.4 GiB are held" in reason


def test_what_others_hold_is_not_planned_for_and_said():
    amount, reason = card(23.6, 12.0).budget
    assert amount == 12 * GIB
    assert "11.6 GiB are held by the display, other programs and CUDA" in reason


def test_cards_that_cannot_train_are_left_out_and_named():
    display, busy, good = (
        card(4.0, 3.2, index=0, name="T1000"),
        card(24.0, 5.0, index=1),
        card(24.0, 23.0, index=2),
    )
    able, faults = able_to_train([display, busy, good], 20 * GIB, "bfloat16")
    assert able == [good]
    assert faults == [
        "cuda:0 (T1000) has 3.2 GiB free, and 20.0 are needed",
        "cuda:1 (RTX 4090) has 5.0 GiB free, and 20.0 are needed",
    ]
    turing = card(11.0, 10.8, (7, 5), name="RTX 2080 Ti")
    assert able_to_train([turing], GIB, "float16") == ([turing], [])
    assert able_to_train([turing], GIB, "float32") == ([turing], [])
    assert "has no bfloat16" in able_to_train([turing], GIB, "bfloat16")[1][0]
    assert "has no float16" in able_to_train([card(capability=(6, 1))], GIB, "float16")[1][0]
