"""Every component that draws has a generator of its own, derived from the seed and its name."""

import os
import random
import subprocess
import sys

import torch

from lifelong.randomness import derived_generator, derived_seed


def test_a_derived_seed_is_the_beginning_of_a_sha256_worked_out_by_coreutils():
    # printf '0/data/1/2' | sha256sum, the first 16 digits, halved
    assert derived_seed(0, "data", 1, 2) == 0xB369F2EE01BD9D95 // 2 == 6464065654694530762
    assert derived_seed(7, "adapter") == 0x2378D9B7C451D217 // 2


def test_seeds_differ_by_every_part_of_the_name_and_fit_into_63_bits():
    names = [
        (seed, part, stage, epoch) for seed in range(8) for part in ("a", "b") for stage in range(8) for epoch in "xy"
    ]
    seeds = [derived_seed(*name) for name in names]
    assert len(set(seeds)) == len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, 11) != derived_seed(11, 1)


def test_a_generator_starts_from_the_derived_seed_and_is_a_fresh_one_each_time():
    expected = torch.rand(4, generator=torch.Generator().manual_seed(6464065654694530762))
    for _ in range(2):
        assert torch.equal(torch.rand(4, generator=derived_generator(0, "data", 1, 2)), expected)


def test_the_global_random_state_neither_matters_nor_changes():
    torch.manual_seed(1)
    random.seed(1)
    states = torch.get_rng_state(), random.getstate()
    first = torch.rand(4, generator=derived_generator(3, "x"))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    torch.manual_seed(2)
    assert torch.equal(torch.rand(4, generator=derived_generator(3, "x")), first)


def test_another_process_derives_the_same_seed_whatever_its_hashes():
    program = "from lifelong.randomness import derived_seed; print(derived_seed(0, 'data', 1, 2))"
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == "6464065654694530762"
