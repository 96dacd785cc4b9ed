"""Makes the folders beside this file: small networks of random weights, saved by the libraries that
they come from, with what they answer.

    pip install torch transformers timm safetensors
    python tests/goldens/pretrained/make.py [folder] [names]

With ``--check`` nothing is written: folders that ``jaxdistill.models.export`` made of the same
networks are opened by those libraries in their turn, and must answer the same.

A name may be that of a network of full size, too: a folder, or what it is called on the hub
(``timm/...`` for timm's). Then jaxdistill, without torch, is asked the same:

    python tests/goldens/pretrained/make.py runs/full google/vit-base-patch16-224 gpt2
    python tests/published.py runs/full/*
"""

import json
import sys
import zlib
from pathlib import Path

SEED = 0
# Networks that come in one size only: their weights are drawn from their names, and not stored.
DRAWN = "mobilenet"
TEXT = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 4,
}
DECODER = {**TEXT, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
MODERN = {
    "num_hidden_layers": 3,
    "global_attn_every_n_layers": 2,
    "local_attention": 4,
    "pad_token_id": 0,
    "cls_token_id": 1,
    "bos_token_id": 1,
    "sep_token_id": 2,
    "eos_token_id": 2,
}
CLIP_TEXT = {**TEXT, "eos_token_id": 30, "bos_token_id": 1, "pad_token_id": 0}
DINO = {**{k: v for k, v in VISION.items() if k != "intermediate_size"}, "mlp_ratio": 2}
CONVOLUTIONAL = {"hidden_sizes": [8, 16], "depths": [2, 1], "num_stages": 2, "num_labels": 5,
                 "layer_scale_init_value": 0.1}  # fmt: skip
RESIDUAL = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 1]}
# name: (class in Transformers, its config)
TRANSFORMERS = {
    "vit": ("ViTForImageClassification", {**VISION, "num_labels": 5}),
    "vit_model": ("ViTModel", VISION),
    "deit": ("DeiTForImageClassificationWithTeacher", {**VISION, "num_labels": 5}),
    "mae": (
        "ViTMAEForPreTraining",
        {
            **VISION,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
        },
    ),
    "resnet": (
        "ResNetForImageClassification",
        {**RESIDUAL, "layer_type": "basic", "num_labels": 5},
    ),
    "resnet_a": (
        "ResNetForImageClassification",
        {**RESIDUAL, "layer_type": "bottleneck", "downsample_in_bottleneck": True, "num_labels": 5},
    ),
    "bert": ("BertModel", TEXT),
    "bert_masked": ("BertForMaskedLM", TEXT),
    "bert_classes": ("BertForSequenceClassification", {**TEXT, "num_labels": 3}),
    "bert_tokens": ("BertForTokenClassification", {**TEXT, "num_labels": 3}),
    "roberta_masked": ("RobertaForMaskedLM", {**TEXT, "pad_token_id": 1, "type_vocab_size": 1}),
    "roberta_classes": (
        "RobertaForSequenceClassification",
        {**TEXT, "pad_token_id": 1, "type_vocab_size": 1, "num_labels": 3},
    ),
    "distilbert_masked": (
        "DistilBertForMaskedLM",
        {"vocab_size": 31, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
         "max_position_embeddings": 20},
    ),
    "distilbert_classes": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 31, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24,
         "max_position_embeddings": 20, "num_labels": 3},
    ),
    "llama": ("LlamaForCausalLM", {**DECODER, "tie_word_embeddings": False}),
    "llama3": (
        "LlamaForCausalLM",
        {
            **DECODER,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "mistral": ("MistralForCausalLM", {**DECODER, "sliding_window": 4}),
    "qwen2": ("Qwen2ForCausalLM", {**DECODER, "head_dim": None, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    "gemma": ("GemmaForCausalLM", {**DECODER, "hidden_act": "gelu_pytorch_tanh"}),
    "gemma2": (
        "Gemma2ForCausalLM",
        {
            **DECODER,
            "query_pre_attn_scalar": 4,
            "sliding_window": 4,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        "Gemma3ForCausalLM",
        {
            **DECODER,
            "query_pre_attn_scalar": 16,
            "sliding_window": 4,
            "sliding_window_pattern": 2,
            "num_hidden_layers": 3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 31, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 80,
         "bos_token_id": 0, "eos_token_id": 0},
    ),
    "electra": ("ElectraForPreTraining", {**TEXT, "embedding_size": 8}),
    "electra_masked": ("ElectraForMaskedLM", {**TEXT, "embedding_size": 8}),
    "electra_classes": ("ElectraForSequenceClassification",
                        {**TEXT, "embedding_size": 16, "num_labels": 3}),
    "modernbert_masked": ("ModernBertForMaskedLM", {**TEXT, **MODERN}),
    "modernbert_classes": (
        "ModernBertForSequenceClassification",
        {**TEXT, **MODERN, "num_labels": 3, "classifier_pooling": "mean"},
    ),
    "clip": (
        "CLIPModel",
        {"text_config": CLIP_TEXT, "vision_config": VISION, "projection_dim": 12},
    ),
    "clip_image": ("CLIPVisionModelWithProjection", {**VISION, "projection_dim": 12}),
    "clip_text": ("CLIPTextModelWithProjection", {**CLIP_TEXT, "projection_dim": 12}),
    "siglip": (
        "SiglipModel",
        {"text_config": {**TEXT, "projection_size": 16}, "vision_config": VISION},
    ),
    "siglip_image": ("SiglipVisionModel", VISION),
    "siglip_text": ("SiglipTextModel", {**TEXT, "projection_size": 12}),
    "dinov2": ("Dinov2ForImageClassification", {**DINO, "num_labels": 5}),
    "dinov2_registers": (
        "Dinov2WithRegistersModel",
        {**DINO, "num_register_tokens": 3, "use_swiglu_ffn": True},
    ),
    "dinov2_registers_classes": (
        "Dinov2WithRegistersForImageClassification",
        {**DINO, "num_register_tokens": 3, "num_labels": 5},
    ),
    "convnext": ("ConvNextForImageClassification", CONVOLUTIONAL),
    "convnext2": ("ConvNextV2ForImageClassification", CONVOLUTIONAL),
}  # fmt: skip
SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
STAGES = {"depths": [1, 1, 2, 1], "dims": [4, 8, 8, 8]}
MAPS = {"layers": [2, 1, 1, 1], "channels": [4, 4, 8, 8]}
# name: (architecture in timm, its arguments)
TIMM = {
    "timm_vit": ("vit_tiny_patch16_224", {**SMALL, "num_classes": 5}),
    "timm_vit_scaled": ("vit_small_patch16_224", {**SMALL, "init_values": 0.1, "num_classes": 5}),
    "timm_deit": ("deit_tiny_distilled_patch16_224", {**SMALL, "num_classes": 5}),
    "timm_dinov2": ("vit_small_patch14_dinov2", {**SMALL, "num_classes": 0}),
    "timm_dinov2_registers": (
        "vit_giant_patch14_reg4_dinov2",
        {**SMALL, "mlp_ratio": 3.0, "reg_tokens": 3, "num_classes": 5},
    ),
    "timm_clip": ("vit_base_patch32_clip_quickgelu_224", {**SMALL, "num_classes": 12}),
    "timm_siglip": ("vit_base_patch32_siglip_256", {**SMALL, "num_classes": 0}),
    "timm_siglip_gap": ("vit_base_patch16_siglip_gap_224", {**SMALL, "num_classes": 5}),
    "timm_resnet": ("resnet18", {**MAPS, "num_classes": 5}),
    "timm_resnet_c": ("resnet50c", {**MAPS, "stem_width": 4, "num_classes": 5}),
    "timm_resnet_d": ("resnet50d", {**MAPS, "stem_width": 4, "num_classes": 5}),
    "timm_convnext": ("convnext_tiny", {**STAGES, "num_classes": 5}),
    "timm_convnext2": ("convnextv2_atto", {**STAGES, "num_classes": 5}),
    "timm_mobilenet": ("mobilenetv3_small_050", {"num_classes": 5}),
    "timm_mobilenet_large": ("mobilenetv3_large_075", {"num_classes": 5}),
}


def main() -> None:
    import numpy as np
    import timm
    import torch
    import transformers

    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    root = Path(arguments[0]) if arguments else Path(__file__).parent
    names = arguments[1:] or [*TRANSFORMERS, *TIMM]
    check = "--check" in sys.argv
    versions = {m.__name__: m.__version__ for m in (torch, transformers, timm)}
    print(versions)
    for name in names:
        full = name not in TRANSFORMERS and name not in TIMM
        folder = root / (Path(name).name if full else name)
        torch.manual_seed(SEED)
        model = opened(folder, name) if check else published(name) if full else made(name)
        model.eval()
        if check:
            there = dict(np.load(Path(__file__).parent / name / "case.npz"))
            worst = largest_error(answers(model, there), there)
            print(f"{name:28} largest relative error {worst:.1e}")
            assert worst < 1e-5, name
            continue
        folder.mkdir(parents=True, exist_ok=True)
        save(model, folder, name)
        given = inputs_of(model) if full else inputs(name)
        found = answers(model, given)
        np.savez_compressed(folder / "case.npz", **given, **found)
        (folder / "versions.json").write_text(json.dumps(versions) + "\n")
        half = largest_error(answers(model.to(torch.bfloat16), given), found)
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{name:28} {size:10} bytes, in bfloat16 {half:.1e} from itself", flush=True)


def largest_error(mine, theirs):
    """Of any array, relative to the largest absolute value there."""
    import numpy as np

    errors = {
        key: np.abs(mine[key] - theirs[key]).max() / np.abs(theirs[key]).max() for key in mine
    }
    return float(max(errors.values()))


def drawn(name, shape):
    """Weights that follow from the name and the shape of a tensor."""
    import numpy as np

    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return (0.5 + random.random_sample(shape)).astype(np.float32)
    spread = 0.3 if len(shape) < 2 else np.prod(shape[1:]) ** -0.5
    found = spread * random.standard_normal(shape)
    scale = len(shape) == 1 and name.endswith("weight")
    return (found + 1 if scale else found).astype(np.float32)


def made(name):
    """The network with weights of a size that lets every one of them be seen in the answer."""
    import timm
    import torch
    import transformers

    if name in TIMM:
        architecture, given = TIMM[name]
        model = timm.create_model(architecture, pretrained=False, **given)
    else:
        kind, given = TRANSFORMERS[name]
        cls = getattr(transformers, kind)
        model = cls(cls.config_class(**{k: v for k, v in given.items() if v is not None}))
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if DRAWN in name:
                tensor.copy_(torch.tensor(drawn(key, tuple(tensor.shape))))
                continue
            if not tensor.is_floating_point() or ("position_embeddings" in key and "mae" in name):
                continue
            spread = 0.3 if tensor.ndim < 2 else 0.5 * tensor[0].numel() ** -0.5 * 2
            fresh = spread * torch.randn_like(tensor)
            if key.endswith("running_var"):
                fresh = 0.5 + torch.rand_like(tensor)
            elif tensor.ndim == 1 and "weight" in key and "gemma" not in name:
                fresh = 1 + fresh
            tensor.copy_(fresh)
    return model


def published(name):
    """A network of full size in float32, with the weights that it is published with."""
    import timm
    import torch
    import transformers

    there = Path(name) / "config.json"
    if there.exists() and "architecture" in json.loads(there.read_text()):
        return timm.create_model(f"local-dir:{name}", pretrained=True)
    if name.startswith("timm/"):
        return timm.create_model(f"hf-hub:{name}", pretrained=True)
    (kind,) = transformers.AutoConfig.from_pretrained(name).architectures
    return getattr(transformers, kind).from_pretrained(name, dtype=torch.float32)


def save(model, folder, name) -> None:
    if of_timm(model):
        from timm.models import save_for_hf

        given = TIMM[name][1] if name in TIMM else {}
        arguments = {k: v for k, v in given.items() if k != "num_classes"}
        save_for_hf(model, folder, model_args=arguments, safe_serialization=True)
        for extra in folder.glob("*.bin"):
            extra.unlink()
        if DRAWN in name:
            (folder / "model.safetensors").unlink()
            shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
            (folder / "shapes.json").write_text(json.dumps(shapes) + "\n")
    else:
        model.save_pretrained(folder)


def opened(folder, name):
    import timm
    import transformers

    if name in TIMM:
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
    model, report = getattr(transformers, TRANSFORMERS[name][0]).from_pretrained(
        folder, output_loading_info=True
    )
    unread = ("pooler", "mask_token")
    lost = [key for key in report["missing_keys"] if not any(part in key for part in unread)]
    assert not lost, (name, lost)
    assert not report["unexpected_keys"], (name, report["unexpected_keys"])
    return model


def inputs(name):
    import numpy as np

    generator = np.random.default_rng(SEED)
    kind = "" if name in TIMM else TRANSFORMERS[name][0]
    pictures = kind.startswith(("ViT", "DeiT", "ResNet", "Dinov2", "ConvNext"))
    if name in TIMM or pictures or "Vision" in kind:
        size = {"resnet": 33, "convnext": 37, "mobilenet": 49}
        size = next((side for part, side in size.items() if part in name), 16)
        given = {"image": generator.normal(size=(2, size, size, 3)).astype(np.float32)}
        if name == "mae":
            given["noise"] = generator.random(size=(2, 16)).astype(np.float32)
        return given
    tokens = generator.integers(3, 31, size=(3, 9))
    lengths = np.array([9, 5, 2])
    mask = np.arange(9)[None] < lengths[:, None]
    padding = 1 if name.startswith("roberta") else 0
    given = {"tokens": np.where(mask, tokens, padding).astype(np.int32), "mask": mask}
    if "CLIP" in kind:  # the token that ends a text, and what fills it up
        given["tokens"][range(3), lengths - 1] = TRANSFORMERS[name][1].get(
            "eos_token_id", CLIP_TEXT["eos_token_id"]
        )
    if kind in ("CLIPModel", "SiglipModel"):
        given["image"] = generator.normal(size=(2, 16, 16, 3)).astype(np.float32)
    if name.startswith(("bert", "electra")):
        given["types"] = (np.arange(9)[None] >= lengths[:, None] // 2).astype(np.int32) * mask
    return given


def inputs_of(model):
    """Images of the size that a network is for, or texts of three lengths."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    if of_timm(model):
        channels, *side = model.pretrained_cfg["input_size"]
        return {"image": generator.normal(size=(2, *side, channels)).astype(np.float32)}
    config, given = model.config, {}
    seen = getattr(config, "vision_config", config)
    if model.main_input_name == "pixel_values" or hasattr(config, "vision_config"):
        side, channels = getattr(seen, "image_size", 224), seen.num_channels
        given["image"] = generator.normal(size=(2, side, side, channels)).astype(np.float32)
        if "MAE" in type(model).__name__:
            patches = (side // config.patch_size) ** 2
            given["noise"] = generator.random(size=(2, patches)).astype(np.float32)
    if model.main_input_name == "input_ids" or hasattr(config, "text_config"):
        read = getattr(config, "text_config", config)
        longest = min(48, getattr(read, "max_position_embeddings", 48) - 2)
        lengths = np.array([longest, longest // 2, 3])
        mask = np.arange(longest)[None] < lengths[:, None]
        tokens = generator.integers(5, read.vocab_size - 5, size=mask.shape)
        padding = read.pad_token_id or 0
        tokens = np.where(mask, tokens, padding)
        if "CLIP" in type(model).__name__:  # the token that ends a text
            end = read.eos_token_id
            tokens[range(3), lengths - 1] = read.vocab_size - 1 if end == 2 else end
        given |= {"tokens": tokens.astype(np.int32), "mask": mask}
    return given


def answers(model, given):
    """``out`` and the hidden states ``hidden_0``, ... behind every block (or stage)."""
    import torch

    kind = type(model).__name__
    with torch.no_grad():
        if "image" in given and "tokens" in given:
            return of_towers(model, given)
        if "image" in given:
            image = torch.tensor(given["image"]).permute(0, 3, 1, 2).to(kind_of(model))
            if of_timm(model):
                return stages_of(model, image)
            more = {"noise": torch.tensor(given["noise"])} if "noise" in given else {}
            found = model(pixel_values=image, output_hidden_states=True, **more)
            if "noise" in given:
                kept = (1 - found.mask).float().numpy()
                return {
                    "out": found.logits.float().numpy(),
                    "kept": kept,
                    **hidden(found.hidden_states),
                }
            if kind.startswith(("ResNet", "ConvNext")):
                maps = [h.permute(0, 2, 3, 1).float().numpy() for h in found.hidden_states[1:]]
                return {"out": found.logits.float().numpy(), **hidden([None, *maps])}
            out = found.last_hidden_state if kind in ("ViTModel", "DeiTModel") else answer(found)
            return {"out": out.float().numpy(), **hidden(found.hidden_states)}
        tokens = {
            "input_ids": torch.tensor(given["tokens"]).long(),
            "attention_mask": torch.tensor(given["mask"]).long(),
        }
        if "types" in given:
            tokens["token_type_ids"] = torch.tensor(given["types"]).long()
        found = model(**tokens, output_hidden_states=True)
        whole = kind.endswith("Model") and "last_hidden_state" in found and "CLIP" not in kind
        out = found.last_hidden_state if whole and "Siglip" not in kind else answer(found)
        return {"out": out.float().numpy(), **hidden(found.hidden_states)}


def answer(found):
    """What a model says in the end, by whatever name."""
    for key in ("logits", "image_embeds", "text_embeds", "pooler_output"):
        if found.get(key) is not None:
            return found[key]
    raise KeyError(list(found))


def of_towers(model, given):
    """The answers of CLIP and SigLIP, with the hidden states of both towers."""
    import torch

    found = model(
        input_ids=torch.tensor(given["tokens"]).long(),
        attention_mask=torch.tensor(given["mask"]).long(),
        pixel_values=torch.tensor(given["image"]).permute(0, 3, 1, 2).to(kind_of(model)),
        output_hidden_states=True,
    )
    arrays = {
        "logits": found.logits_per_image.float().numpy(),
        "image_embedding": found.image_embeds.float().numpy(),
        "text_embedding": found.text_embeds.float().numpy(),
    }
    outputs = {"image": found.vision_model_output, "text": found.text_model_output}
    for tower, output in outputs.items():
        states = hidden(output.hidden_states)
        arrays |= {f"{tower}_{key}": state for key, state in states.items()}
    return arrays


def plain(state):
    return state.float().numpy() if hasattr(state, "numpy") else state


def kind_of(model):
    return next(model.parameters()).dtype


def hidden(states):
    """What lies behind the embeddings, by number; the last state of a decoder is normed."""
    return {f"hidden_{i}": state for i, state in enumerate(map(plain, states[1:]))}


def of_timm(model) -> bool:
    return type(model).__module__.startswith("timm")


def stages_of(model, image):
    out = model(image).float().numpy()
    stages = [f"layer{i}" for i in range(1, 5)]
    if hasattr(model, "layer1"):
        layers = [getattr(model, stage) for stage in stages]
    else:
        layers = list(getattr(model, "stages", None) or model.blocks)
    # The last convolution of a MobileNet is no stage.
    layers = layers[:-1] if hasattr(model, "conv_head") else layers
    seen = []
    hooks = [layer.register_forward_hook(lambda _, __, o: seen.append(o)) for layer in layers]
    model(image)
    for hook in hooks:
        hook.remove()
    states = [s.permute(0, 2, 3, 1) if s.ndim == 4 else s for s in seen]
    return {"out": out, **hidden([None, *(s.float().numpy() for s in states)])}


if __name__ == "__main__":
    main()
