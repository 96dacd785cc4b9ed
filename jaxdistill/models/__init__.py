"""Readable networks in Flax Linen, channels last, with features tapped by module path."""

from jaxdistill.models.blocks import split_qkv
from jaxdistill.models.clip import CLIP, TextTower
from jaxdistill.models.convnet import ConvNet
from jaxdistill.models.convnext import ConvNeXt
from jaxdistill.models.decoder import Decoder, head_of
from jaxdistill.models.dit import DiT
from jaxdistill.models.encoder import Encoder
from jaxdistill.models.experts import SparseMlp
from jaxdistill.models.inherit import importance, inherit, layers_of, take_layers, upcycle
from jaxdistill.models.layouts import stack_blocks, unstack_blocks
from jaxdistill.models.mae import MAE, mae_size
from jaxdistill.models.masking import (
    Masking,
    Reconstruction,
    least_redundant,
    mask_from_keep,
    mask_from_noise,
    patch_grid,
    patchify,
    random_masking,
    reconstruction,
    sincos_positions,
    unpatchify,
)
from jaxdistill.models.mixer import Mixer
from jaxdistill.models.mlp import MLP
from jaxdistill.models.mobilenet import MobileNetV3
from jaxdistill.models.modern_bert import ModernBert
from jaxdistill.models.pretrained import Pretrained, export, load
from jaxdistill.models.resnet import ResNet, cifar_resnet, imagenet_resnet
from jaxdistill.models.sentence_pair import SentencePair, apart, compared, pair_features
from jaxdistill.models.stage_heads import stage_head
from jaxdistill.models.text_encoder import TextEncoder
from jaxdistill.models.timed import TimeMLP, time_features
from jaxdistill.models.unet import CriticHead, UNet
from jaxdistill.models.vit import ViT, vit_size
from jaxdistill.models.wide_resnet import WideResNet

__all__ = [
    "CLIP",
    "MAE",
    "MLP",
    "ConvNeXt",
    "ConvNet",
    "CriticHead",
    "Decoder",
    "DiT",
    "Encoder",
    "Masking",
    "Mixer",
    "MobileNetV3",
    "ModernBert",
    "Pretrained",
    "Reconstruction",
    "ResNet",
    "SentencePair",
    "SparseMlp",
    "TextEncoder",
    "TextTower",
    "TimeMLP",
    "UNet",
    "ViT",
    "WideResNet",
    "apart",
    "cifar_resnet",
    "compared",
    "export",
    "head_of",
    "imagenet_resnet",
    "importance",
    "inherit",
    "layers_of",
    "least_redundant",
    "load",
    "mae_size",
    "mask_from_keep",
    "mask_from_noise",
    "pair_features",
    "patch_grid",
    "patchify",
    "random_masking",
    "reconstruction",
    "sincos_positions",
    "split_qkv",
    "stack_blocks",
    "stage_head",
    "take_layers",
    "time_features",
    "unpatchify",
    "unstack_blocks",
    "upcycle",
    "vit_size",
]
