"""How fast mixtures train, beside LoRA of the same total rank and published layers that loop over their experts.

    python experiments/benchmarks/adapter_speed.py [--rounds 15] [--tokens 512 2048] [--device cpu]

Forward and backward pass through one feed-forward layer, as it stands in TinyLlama-1.1B, Phi-2 and Mistral-7B, frozen,
without dropout; then a whole model with X-LoRA and Poly beside it. All contenders take turns in one process, the first
rounds warm up, and medians count. `moe_peft` is no dependency of the project; where it is to be measured:

    pip install --no-deps --target moe_peft moe_peft==2.0.2 && PYTHONPATH=moe_peft python experiments/benchmarks/...

Asked, for 8 experts of rank 8: at most 1.15 times LoRA of rank 64 (geometric mean, on a CPU; 1.10 on a GPU in bf16), at
least 3 times faster than `LoraMoe`, and 2 times faster than X-LoRA for a whole model; peak memory at most 1.10 times
LoRA's; 4 to 64 experts at equal total rank within 1.25 times of each other.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, PeftConfig, PolyConfig, XLoraConfig, get_peft_model
from timing import median_seconds
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from lifelong.adapters import LoraMoeConfig, MoralConfig

EXPERTS, RANK = 8, 8
TOTAL = EXPERTS * RANK
SHAPES = {
    "TinyLlama up": (2048, 5632),
    "TinyLlama down": (5632, 2048),
    "Phi-2 up": (2560, 10240),
    "Phi-2 down": (10240, 2560),
    "Mistral up": (4096, 14336),
    "Mistral down": (14336, 4096),
}
WARM_UP = 3
Way = Callable[[], None]


def lora(rank: int = TOTAL, **settings: object) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, **settings)


def moral(experts: int = EXPERTS, top_k: int = 2, **settings: object) -> MoralConfig:
    rank = TOTAL // experts
    return MoralConfig(num_experts=experts, top_k=top_k, r=rank, lora_alpha=2 * rank, lora_dropout=0.0, **settings)


def dense(experts: int = EXPERTS, **settings: object) -> LoraMoeConfig:
    rank = TOTAL // experts
    return LoraMoeConfig(
        num_experts=experts, r=rank, lora_alpha=2 * rank, lora_dropout=0.0, balance_weight=0.0, **settings
    )


# ---------------------------------------------------------------- one layer


def layer_way(config: PeftConfig | None, x: torch.Tensor, outputs: int) -> Way:
    """Forward and backward pass of one frozen layer, with an adapter if one is given."""
    network = nn.Sequential()
    network.add_module("linear", nn.Linear(x.shape[-1], outputs, bias=False))
    network = network.to(x.device, x.dtype).requires_grad_(False)
    if config is not None:
        config.target_modules = ["linear"]
        network = get_peft_model(network, config, autocast_adapter_dtype=False).train()
    return passes(network, x, torch.randn(*x.shape[:-1], outputs, device=x.device, dtype=x.dtype))


def passes(network: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> Way:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def way() -> None:
        network(x).backward(gradient)
        x.grad = None
        for parameter in parameters:
            parameter.grad = None

    return way


class Looping(nn.Module):
    """A layer of `moe_peft`, as it is called there: a loop over experts."""

    def __init__(self, kind: str, inputs: int, outputs: int) -> None:
        super().__init__()
        common, adapters = looping_modules()
        settings = {
            "adapter_name": "adapter",
            "lora_r_": RANK,
            "lora_alpha_": 2 * RANK,
            "lora_dropout_": 0.5,  # it refuses 0, which is set below
            "lora_init_": "original",
            "target_modules_": {},
            "use_dora_": False,
            "use_rslora_": False,
            "num_experts_": EXPERTS,
            "router_init_range_": 5.0,
        }
        if kind == "LoraMoe":
            config, block = adapters.loramoe.LoraMoeConfig(**settings), adapters.loramoe.LoraMoe
        else:
            config, block = adapters.mola.MolaConfig(top_k_=2, **settings), adapters.mola.MolaSparseMoe
        self.linear = common.Linear(nn.Linear(inputs, outputs, bias=False), "cpu")
        for number in range(EXPERTS):
            self.linear.init_lora_weight(config, adapter_name=f"moe.adapter.experts.{number}")
        self.loras = nn.ModuleList(self.linear.loras_.values())  # it keeps them in a plain mapping
        for one in self.loras:
            one.dropout_.p = 0.0
        self.block = block(inputs, torch.device("cpu"), config)
        self.gate = self.block.gate_  # the block is no module itself

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block.forward(self.linear.base_layer_(x), x, self.linear)


def looping_modules() -> tuple[types.ModuleType, types.ModuleType]:
    """The layers of `moe_peft` alone: its package as a whole wants more than they need."""
    if "moe_peft" not in sys.modules:
        package = types.ModuleType("moe_peft")
        package.__path__ = list(importlib.util.find_spec("moe_peft").submodule_search_locations)
        sys.modules["moe_peft"] = package
    import moe_peft.adapters.loramoe
    import moe_peft.adapters.mola
    import moe_peft.common

    return moe_peft.common, moe_peft.adapters


def layer_ways(shape: tuple[int, int], x: torch.Tensor, loops: bool) -> dict[str, Way]:
    ways = {
        "LoRA": layer_way(lora(), x, shape[1]),
        "frozen base": layer_way(None, x, shape[1]),
        "dense": layer_way(dense(), x, shape[1]),
        "top-2": layer_way(moral(), x, shape[1]),
    }
    if loops:
        gradient = torch.randn(*x.shape[:-1], shape[1])
        ways |= {kind: passes(Looping(kind, *shape).train(), x, gradient) for kind in ("LoraMoe", "MolaSparseMoe")}
    return ways


# ---------------------------------------------------------------- a whole model


def model_ways(config: LlamaConfig, ids: torch.Tensor, dtype: torch.dtype) -> dict[str, Way]:
    targets = ["gate_proj", "up_proj", "down_proj"]
    experts = {str(number): "" for number in range(EXPERTS)}
    adapters: dict[str, PeftConfig | None] = {
        "LoRA": lora(target_modules=targets, task_type="CAUSAL_LM"),
        "frozen base": None,
        "dense": dense(target_modules=targets, task_type="CAUSAL_LM"),
        "top-2": moral(target_modules=targets, task_type="CAUSAL_LM"),
        "Poly": PolyConfig(r=RANK, n_tasks=1, n_skills=EXPERTS, target_modules=targets, task_type="CAUSAL_LM"),
        "X-LoRA": XLoraConfig(
            task_type="CAUSAL_LM", hidden_size=config.hidden_size, adapters=experts, layerwise_scalings=True
        ),
    }
    return {name: model_way(name, config, adapter, ids, dtype) for name, adapter in adapters.items()}


def model_way(name: str, config: LlamaConfig, adapter: PeftConfig | None, ids: torch.Tensor, dtype: torch.dtype) -> Way:
    model = LlamaForCausalLM(config).to(ids.device, dtype).requires_grad_(False)
    inputs = {"input_ids": ids, "labels": ids, "use_cache": False}
    if name == "X-LoRA":
        model = with_xlora(model, adapter)
    elif adapter is not None:
        model = get_peft_model(model, adapter, autocast_adapter_dtype=False).train()
    if name == "frozen base":  # something for the gradient to arrive at
        model.model.embed_tokens.weight.requires_grad_(True)
    if name == "Poly":
        inputs["task_ids"] = torch.zeros(len(ids), dtype=torch.long, device=ids.device)

    def way() -> None:
        model(**inputs).loss.backward()
        model.zero_grad(set_to_none=True)

    return way


def with_xlora(model: nn.Module, config: XLoraConfig) -> nn.Module:
    """X-LoRA over freshly drawn LoRA experts, which it can only read from folders; they learn too, as ours do."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        expert = get_peft_model(model, lora(RANK, target_modules=["gate_proj", "up_proj", "down_proj"]))
        expert.save_pretrained(folder)
        config.adapters = dict.fromkeys(config.adapters, folder)
        mixed = get_peft_model(expert.unload(), config)
    for key, parameter in mixed.named_parameters():
        parameter.requires_grad_("lora_" in key or "xlora" in key)
    return mixed.train()


# ---------------------------------------------------------------- measuring


@contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, int]]:
    """How far what is allocated rises above what was there, in bytes."""
    found: dict[str, int] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield found
        found["peak"] = torch.cuda.max_memory_allocated() - before
        return
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield found
    now = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    found["peak"] = peak


def peak_of(way: Way, device: torch.device) -> int:
    way()
    with peak_memory(device) as found:
        way()
    return found["peak"]


def operations(way: Way, count: int = 5) -> dict[str, float]:
    """Milliseconds per pass that each operation takes by itself."""
    way()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(count):
            way()
    return {event.key: event.self_cpu_time_total / 1000 / count for event in profiler.key_averages()}


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


# ---------------------------------------------------------------- what is asked


def measure_layers(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    loops = device.type == "cpu" and importlib.util.find_spec("moe_peft") is not None
    ratios: dict[str, list[float]] = {}
    rows = []
    for name, shape in SHAPES.items():
        for tokens in options.tokens:
            x = torch.randn(1, tokens, shape[0], device=device, dtype=dtype, requires_grad=True)
            ways = layer_ways(shape, x, loops)
            seconds = median_seconds(ways, options.rounds, WARM_UP)
            for way, value in seconds.items():
                ratios.setdefault(way, []).append(value / seconds["LoRA"])
            rows.append([name, str(tokens), *(f"{1000 * seconds[way]:.1f} ({ratios[way][-1]:.2f})" for way in seconds)])
    table("One layer, forward and backward: ms (times LoRA)", ["layer", "tokens", *ratios], rows)
    summary = [[way, f"{geometric_mean(some):.3f}", f"{max(some):.3f}"] for way, some in ratios.items()]
    table("Times LoRA of rank 64", ["way", "geometric mean", "worst"], summary)
    base = geometric_mean(ratios["frozen base"])
    share = [[way, f"{geometric_mean(ratios[way]) / base:.3f}"] for way in ("LoRA", "dense", "top-2")]
    table("Times the frozen base alone, which is the limit", ["way", "geometric mean"], share)


def measure_small(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    """A layer so narrow that the adapters weigh more than the base, where ways of computing them differ most."""
    shape, tokens = (256, 1024), 2048
    x = torch.randn(1, tokens, shape[0], device=device, dtype=dtype, requires_grad=True)
    loops = device.type == "cpu" and importlib.util.find_spec("moe_peft") is not None
    seconds = median_seconds(layer_ways(shape, x, loops), 4 * options.rounds, WARM_UP)
    rows = [[way, f"{1000 * value:.1f}", f"{value / seconds['LoRA']:.2f}"] for way, value in seconds.items()]
    table("256 to 1024, 2048 tokens", ["way", "ms", "times LoRA"], rows)


def measure_experts(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    shape, tokens = SHAPES["TinyLlama up"], max(options.tokens)
    x = torch.randn(1, tokens, shape[0], device=device, dtype=dtype, requires_grad=True)
    for name, make in {"dense": dense, "top-2": moral}.items():
        ways = {str(count): layer_way(make(count), x, shape[1]) for count in (4, 8, 16, 32, 64)}
        seconds = median_seconds(ways, options.rounds, WARM_UP)
        least = min(seconds.values())
        rows = [[count, f"{1000 * value:.1f}", f"{value / least:.3f}"] for count, value in seconds.items()]
        table(f"Experts at a total rank of {TOTAL}, {name}, {tokens} tokens", ["experts", "ms", "of the least"], rows)


def measure_memory(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    rows, ratios = [], []
    for name, shape in SHAPES.items():
        x = torch.randn(1, max(options.tokens), shape[0], device=device, dtype=dtype, requires_grad=True)
        peaks = {way: peak_of(run, device) for way, run in layer_ways(shape, x, False).items()}
        ratios += [peaks[way] / peaks["LoRA"] for way in ("dense", "top-2")]
        rows.append([name, *(f"{peak / 1e6:.0f} ({peak / peaks['LoRA']:.3f})" for peak in peaks.values())])
    table("Peak memory of a pass: MB (times LoRA's)", ["layer", *peaks], rows)
    print(f"\nworst of the mixtures: {max(ratios):.3f}")


def measure_operations(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    shape = SHAPES["TinyLlama up"]
    x = torch.randn(1, max(options.tokens), shape[0], device=device, dtype=dtype, requires_grad=True)
    ways = layer_ways(shape, x, False)
    base, theirs, ours = (operations(ways[name]) for name in ("frozen base", "LoRA", "top-2"))
    keys = sorted(ours | theirs, key=lambda key: -max(ours.get(key, 0), theirs.get(key, 0)))[:12]
    rows = [[key, *(f"{found.get(key, 0):.2f}" for found in (base, theirs, ours))] for key in keys]
    table("By operation, TinyLlama up: ms per pass", ["operation", "frozen base", "LoRA", "top-2"], rows)


def measure_models(options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> None:
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22 if device.type == "cuda" else 2,
        num_attention_heads=32,
        num_key_value_heads=4,
        use_cache=False,
    )
    ids = torch.randint(0, 4096, (2, 256), device=device)
    seconds = median_seconds(model_ways(config, ids, dtype), options.rounds, WARM_UP)
    rows = [[name, f"{1000 * value:.0f}", f"{value / seconds['LoRA']:.2f}"] for name, value in seconds.items()]
    table(
        f"TinyLlama's shape with {config.num_hidden_layers} blocks, 2 x 256 tokens", ["way", "ms", "times LoRA"], rows
    )


MEASURES = {
    "layers": measure_layers,
    "small": measure_small,
    "experts": measure_experts,
    "memory": measure_memory,
    "operations": measure_operations,
    "models": measure_models,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    options = parser.parse_args()
    device = torch.device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {device}, {dtype}, {torch.get_num_threads()} threads")
    for name in options.only:
        MEASURES[name](options, device, dtype)


if __name__ == "__main__":
    main()
