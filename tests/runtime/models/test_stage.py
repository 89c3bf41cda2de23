"""Stages against Hugging Face transformers, and against each other."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from profiles.huggingface import model_from_huggingface
from profiles.model import ModelSpec
from runtime.models import Stage, build_stage
from runtime.tensor_parallel import TensorParallel

CPU = torch.device("cpu")


def build(spec: ModelSpec, layers: range | None = None, *, first=True, last=True, seed=7) -> Stage:
    layers = range(spec.layers) if layers is None else layers
    return build_stage(
        spec,
        layers=layers,
        first=first,
        last=last,
        tp=TensorParallel(),
        seed=seed,
        dtype=torch.float64,
        device=CPU,
    )


def gpt2(**changes) -> ModelSpec:
    fields = {"layers": 3, "hidden": 24, "heads": 4, "vocab": 61, "seq_len": 16, "activation": "gelu_tanh"}
    return ModelSpec(**(fields | changes))


def llama(**changes) -> ModelSpec:
    fields = {"layers": 3, "hidden": 24, "heads": 6, "kv_heads": 2, "ffn_hidden": 40, "gated_mlp": True}
    fields |= {"vocab": 61, "seq_len": 16, "position": "rope", "norm": "rmsnorm", "tied_embeddings": False}
    return ModelSpec(**(fields | changes))


SPECS = {
    "gpt2": gpt2(),
    "gpt2-untied": gpt2(tied_embeddings=False, activation="gelu"),
    "llama": llama(),
    "llama-tied-biased": llama(tied_embeddings=True, attention_bias=True, linear_bias=True, head_dim=8),
    "relu-learned-rms": gpt2(activation="relu", norm="rmsnorm"),
}


@pytest.fixture(params=SPECS.values(), ids=SPECS.keys())
def spec(request) -> ModelSpec:
    return request.param


def perturb(stage: Stage) -> None:
    """Move norms and biases away from one and zero, where a wrong use of them would not show."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).double(), alpha=0.1)


def sample(spec: ModelSpec, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    tokens, targets = torch.randint(0, spec.vocab, (2, rows, spec.seq_len), generator=generator)
    targets[0, 2:9] = -100
    return tokens, targets


def huggingface_gpt2(spec: ModelSpec, stage: Stage):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=spec.layers,
        n_embd=spec.hidden,
        n_head=spec.heads,
        vocab_size=spec.vocab,
        n_positions=spec.seq_len,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        use_cache=False,
    )
    assert model_from_huggingface(config.to_dict()).model_copy(update={"name": "model"}) == spec
    ours = dict(stage.named_parameters())
    weights = {
        "transformer.wte.weight": ours["embedding.token.weight"],
        "transformer.wpe.weight": ours["embedding.position.weight"],
        "transformer.ln_f.weight": ours["head.norm.weight"],
        "transformer.ln_f.bias": ours["head.norm.bias"],
        "lm_head.weight": ours["embedding.token.weight"],
    }
    for layer in range(spec.layers):
        for leaf in ("weight", "bias"):
            block = {
                "ln_1": ours[f"blocks.{layer}.attention_norm.{leaf}"],
                "ln_2": ours[f"blocks.{layer}.mlp_norm.{leaf}"],
                "attn.c_attn": torch.cat(
                    [ours[f"blocks.{layer}.attention.{part}.{leaf}"] for part in ("query", "key", "value")]
                ).t(),
                "attn.c_proj": ours[f"blocks.{layer}.attention.output.{leaf}"].t(),
                "mlp.c_fc": ours[f"blocks.{layer}.mlp.up.{leaf}"].t(),
                "mlp.c_proj": ours[f"blocks.{layer}.mlp.down.{leaf}"].t(),
            }
            weights |= {f"transformer.h.{layer}.{name}.{leaf}": value for name, value in block.items()}
    model = transformers.GPT2LMHeadModel(config).double()
    model.load_state_dict({name: value.detach() for name, value in weights.items()})
    return model


def huggingface_llama(spec: ModelSpec, stage: Stage):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        num_hidden_layers=spec.layers,
        hidden_size=spec.hidden,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        intermediate_size=spec.ffn_hidden,
        vocab_size=spec.vocab,
        max_position_embeddings=spec.seq_len,
        rms_norm_eps=spec.norm_epsilon,
        attention_bias=spec.attention_bias,
        mlp_bias=spec.linear_bias,
        tie_word_embeddings=spec.tied_embeddings,
        use_cache=False,
    )
    ours = dict(stage.named_parameters())
    tied = spec.tied_embeddings
    weights = {
        "model.embed_tokens.weight": ours["embedding.token.weight"],
        "model.norm.weight": ours["head.norm.weight"],
        "lm_head.weight": ours["embedding.token.weight" if tied else "head.output.weight"],
    }
    names = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
    names |= {f"mlp.{part}_proj": f"mlp.{part}" for part in ("gate", "up", "down")}
    names |= {
        f"self_attn.{part[0]}_proj": f"attention.{part}" for part in ("query", "key", "value", "output")
    }
    for layer in range(spec.layers):
        for theirs, mine in names.items():
            for leaf in ("weight", "bias"):
                if f"blocks.{layer}.{mine}.{leaf}" in ours:
                    weights[f"model.layers.{layer}.{theirs}.{leaf}"] = ours[f"blocks.{layer}.{mine}.{leaf}"]
    model = transformers.LlamaForCausalLM(config).double()
    # transformers' own norm works in fp32 whatever the model's precision; torch's keeps fp64.
    for name, _ in list(model.named_modules()):
        if name.endswith("norm"):
            norm = torch.nn.RMSNorm(spec.hidden, eps=spec.norm_epsilon, dtype=torch.float64)
            model.get_submodule(name.rpartition(".")[0]).register_module(name.rpartition(".")[2], norm)
    model.load_state_dict({name: value.detach() for name, value in weights.items()})
    return model


def test_gpt2_equals_transformers():
    spec = gpt2()
    stage = build(spec)
    perturb(stage)
    compare(stage, huggingface_gpt2(spec, stage), ("embedding.position.weight", "transformer.wpe.weight"))


@pytest.mark.parametrize("name", ["llama", "llama-tied-biased"])
def test_llama_equals_transformers(name):
    spec = SPECS[name]
    stage = build(spec)
    perturb(stage)
    model = huggingface_llama(spec, stage)
    # transformers computes the angles in fp32; with its own table the rest must agree to the last digits.
    cosine, sine = model.model.rotary_emb(torch.zeros(1, dtype=torch.float64), torch.arange(16)[None])
    half = spec.head_dim // 2
    torch.testing.assert_close(stage.rotary.cosine, cosine[0, :, :half], rtol=0, atol=1e-6)
    torch.testing.assert_close(stage.rotary.sine, sine[0, :, :half], rtol=0, atol=1e-6)
    stage.rotary.cosine, stage.rotary.sine = cosine[0, :, :half], sine[0, :, :half]
    compare(stage, model, ("blocks.1.attention.key.weight", "model.layers.1.self_attn.k_proj.weight"))


def compare(stage: Stage, model, pair: tuple[str, str]) -> None:
    tokens, targets = sample(stage.spec)
    logits = model(tokens).logits
    torch.testing.assert_close(stage(tokens), logits, rtol=1e-12, atol=1e-12)
    expected = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    loss = stage(tokens, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    expected.backward()
    loss.backward()
    ours, theirs = dict(stage.named_parameters()), dict(model.named_parameters())
    for name, other in (pair, ("embedding.token.weight", tied_name(theirs))):
        torch.testing.assert_close(ours[name].grad, theirs[other].grad, rtol=1e-10, atol=1e-10)


def tied_name(parameters) -> str:
    return next(name for name in parameters if name.endswith(("wte.weight", "embed_tokens.weight")))


def test_every_gradient_equals_the_difference_quotient(spec):
    stage = build(spec)
    perturb(stage)
    tokens, targets = sample(spec, rows=2)
    stage(tokens, targets).backward()
    generator = torch.Generator().manual_seed(11)
    for name, parameter in stage.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        losses = []
        with torch.no_grad():
            for shift in (1e-5, -2e-5):
                parameter.add_(direction, alpha=shift)
                losses.append(stage(tokens, targets).item())
            parameter.add_(direction, alpha=1e-5)
        quotient = (losses[0] - losses[1]) / 2e-5
        assert (parameter.grad * direction).sum().item() == pytest.approx(quotient, rel=1e-5, abs=1e-5), name


def test_cut_model_equals_whole_model(spec):
    whole = build(spec)
    tokens, targets = sample(spec)
    loss = whole(tokens, targets)
    loss.backward()

    stages = [
        build(spec, range(1), last=False),
        build(spec, range(1, 1), first=False, last=False),
        build(spec, range(1, 3), first=False),
    ]
    inputs, outputs, hidden = [], [], tokens
    for stage in stages:
        inputs.append(hidden)
        outputs.append(stage(hidden, targets) if stage.last else stage(hidden))
        hidden = outputs[-1].detach().requires_grad_()
    assert torch.equal(outputs[-1], loss)
    outputs[-1].backward()
    outputs[1].backward(inputs[2].grad)
    outputs[0].backward(inputs[1].grad)

    gradients = {name: p.grad for stage in stages[1:] for name, p in stage.named_parameters()}
    for name, parameter in stages[0].named_parameters():
        gradients[name] = parameter.grad + gradients.get(name, 0.0)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(gradients.pop(name), parameter.grad, rtol=1e-13, atol=1e-14)
    assert not gradients


def test_tied_weight_is_named_where_two_stages_hold_it():
    tied, untied = gpt2(), gpt2(tied_embeddings=False)
    first, last = build(tied, range(1), last=False), build(tied, range(1, 3), first=False)
    assert first.tied_weight() is dict(first.named_parameters())["embedding.token.weight"]
    assert last.tied_weight() is dict(last.named_parameters())["embedding.token.weight"]
    assert torch.equal(first.tied_weight(), last.tied_weight())
    assert build(tied).tied_weight() is None
    assert build(tied, range(1), first=False, last=False).tied_weight() is None
    assert build(untied, range(1), last=False).tied_weight() is None
    assert build(untied, range(1, 3), first=False).tied_weight() is None


def test_parameters_are_counted_as_the_spec_counts_them(spec):
    assert sum(p.numel() for p in build(spec).parameters()) == spec.parameters


def test_short_sequences_are_prefixes(spec):
    stage = build(spec)
    tokens, _ = sample(spec)
    torch.testing.assert_close(stage(tokens[:, :5]), stage(tokens)[:, :5], rtol=1e-12, atol=1e-12)


def test_tokens_outside_the_vocabulary_are_refused():
    stage = build(gpt2())
    with pytest.raises(IndexError):
        stage(torch.full((1, 4), 61))
