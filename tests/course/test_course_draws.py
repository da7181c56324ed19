"""Draws that only the key's holder knows."""

import torch

from course.draws import Draw


def test_every_name_and_the_key_count():
    names = ["assignment", "student", "question", "check"]
    first = Draw("key", names).random()
    assert Draw("key", names).random() == first
    for place in range(len(names)):
        other = [*names[:place], "other", *names[place + 1 :]]
        assert Draw("key", other).random() != first
    assert Draw("another", names).random() != first


def test_two_lists_of_names_make_no_one_text():
    assert Draw("key", ["ab", "c"]).random() != Draw("key", ["a", "bc"]).random()


def test_a_name_is_the_same_however_its_letters_are_put_together():
    assert Draw("key", ["é"]).random() == Draw("key", ["e\u0301"]).random()


def test_any_name_will_do():
    Draw("key", ["\udce9", "", "😀"])


def test_tensors_have_the_scale_and_type_that_were_asked_for():
    drawn = Draw("key", ["t"]).tensor(200, 100, scale=3.0, dtype=torch.float64)
    assert drawn.shape == (200, 100)
    assert drawn.dtype == torch.float64
    # 20,000 draws: 0.5 % is one standard deviation.
    assert abs(float(drawn.std()) / 3 - 1) < 0.03
