"""Published networks with random weights, as their authors write them: for the demo, the benchmark and the tests.

Names and sizes are those of the publications; `width` divides the channels, so that tests are quick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

__all__ = ["NETWORKS", "Network", "make"]


def vgg(table: tuple[int, ...], width: int = 1, normed: bool = False) -> Any:
    """The features of VGG (arXiv 1409.1556); 0 in the table is a pool."""
    layers: list[Any] = []
    channels = 3
    for entry in table:
        if not entry:
            layers.append(nn.MaxPool2d(2))
            continue
        out = entry // width
        layers += [nn.Conv2d(channels, out, 3, padding=1), *([nn.BatchNorm2d(out)] if normed else []), nn.ReLU(True)]
        channels = out
    return nn.Sequential(*layers)


VGG11 = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def classifier(features: Any, channels: int, classes: int = 1000) -> Any:
    """Features, their mean over the image, and a linear layer."""
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Residual(nn.Module):  # type: ignore[misc]
    """A block of ResNet (arXiv 1512.03385): two 3x3 convolutions, or three with a bottleneck."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool, dilation: int = 1) -> None:
        super().__init__()
        out = width * (4 if bottleneck else 1)
        self.bottleneck = bottleneck
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        sizes = (channels, width, width, out) if bottleneck else (channels, width, out)
        for i, (kernel, step) in enumerate(zip(kernels, strides, strict=True), 1):
            apart = dilation if kernel == 3 else 1
            pad = apart * (kernel // 2)
            convolution = nn.Conv2d(sizes[i - 1], sizes[i], kernel, step, pad, apart, bias=False)
            setattr(self, f"conv{i}", convolution)
            setattr(self, f"bn{i}", nn.BatchNorm2d(sizes[i]))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Any) -> Any:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.bottleneck:
            out = self.relu(out)
            out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):  # type: ignore[misc]
    """ResNet, for photographs or, with ``small``, for CIFAR's images."""

    def __init__(
        self, counts: tuple[int, ...], bottleneck: bool, width: int = 1, small: bool = False, classes: int = 1000
    ) -> None:
        super().__init__()
        base = 64 // width
        self.conv1 = nn.Conv2d(3, base, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        layers, channels = [], base
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                blocks.append(Residual(channels, base << stage, 2 if stage and not i else 1, bottleneck))
                channels = (base << stage) * (4 if bottleneck else 1)
            layers.append(nn.Sequential(*blocks))
        self.layers = nn.ModuleList(layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Any) -> Any:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for layer in self.layers:
            x = layer(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class UNet(nn.Module):  # type: ignore[misc]
    """U-Net (arXiv 1505.04597) with batch norms and padding."""

    def __init__(self, base: int = 32) -> None:
        super().__init__()

        def double(channels: int, out: int) -> Any:
            layers: list[Any] = []
            for c in (channels, out):
                layers += [nn.Conv2d(c, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(True)]
            return nn.Sequential(*layers)

        sizes = [base, 2 * base, 4 * base, 8 * base, 16 * base]
        self.down = nn.ModuleList([double(c, o) for c, o in zip([3, *sizes], sizes, strict=False)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(2 * c, c, 2, 2) for c in sizes[-2::-1]])
        self.join = nn.ModuleList([double(2 * c, c) for c in sizes[-2::-1]])
        self.out = nn.Conv2d(base, 1, 1)

    def forward(self, x: Any) -> Any:
        kept = []
        for i, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if i else x)
            kept.append(x)
        for up, join, other in zip(self.up, self.join, kept[-2::-1], strict=True):
            x = join(torch.cat([up(x), other], 1))
        return self.out(x)


class DenseResidual(nn.Module):  # type: ignore[misc]
    """The dense block of ESRGAN (arXiv 1809.00219)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for i in range(5):
            out = growth if i < 4 else channels
            setattr(self, f"conv{i + 1}", nn.Conv2d(channels + i * growth, out, 3, 1, 1))
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Any) -> Any:
        x1 = self.lrelu(self.conv1(x))
        x2 = self.lrelu(self.conv2(torch.cat((x, x1), 1)))
        x3 = self.lrelu(self.conv3(torch.cat((x, x1, x2), 1)))
        x4 = self.lrelu(self.conv4(torch.cat((x, x1, x2, x3), 1)))
        x5 = self.conv5(torch.cat((x, x1, x2, x3, x4), 1))
        return x5 * 0.2 + x


class RRDB(nn.Module):  # type: ignore[misc]
    """Three dense blocks with a residual around them."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DenseResidual(channels, growth) for _ in range(3)))

    def forward(self, x: Any) -> Any:
        return self.blocks(x) * 0.2 + x


class ESRGAN(nn.Module):  # type: ignore[misc]
    """The generator of ESRGAN: four times the size."""

    def __init__(self, blocks: int = 6, channels: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, 1, 1)
        self.body = nn.Sequential(*(RRDB(channels, growth) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(channels, 3, 3, 1, 1)
        self.lrelu = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        x = x + self.conv_body(self.body(x))
        x = self.lrelu(self.conv_up1(F.interpolate(x, scale_factor=2, mode="nearest")))
        x = self.lrelu(self.conv_up2(F.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(x)))


def conv_norm(c: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: Callable[[], Any] | None = nn.ReLU6) -> Any:
    """Convolution, batch norm, activation."""
    layers = [nn.Conv2d(c, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Squeeze(nn.Module):  # type: ignore[misc]
    """Squeeze and excitation (arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Any) -> Any:
        return torch.sigmoid(self.fc2(F.silu(self.fc1(self.pool(x))))) * x


class Inverted(nn.Module):  # type: ignore[misc]
    """An inverted residual of MobileNetV2 (arXiv 1801.04381) or, with squeezing, of EfficientNet (arXiv 1905.11946)."""

    def __init__(self, c: int, o: int, k: int, stride: int, expand: int, act: Callable[[], Any], squeeze: bool) -> None:
        super().__init__()
        h = c * expand
        layers = [conv_norm(c, h, 1, act=act)] if expand > 1 else []
        layers.append(conv_norm(h, h, k, stride, h, act))
        layers += [Squeeze(h, max(c // 4, 1))] if squeeze else []
        self.conv = nn.Sequential(*layers, nn.Conv2d(h, o, 1, bias=False), nn.BatchNorm2d(o))
        self.use_res_connect = stride == 1 and c == o

    def forward(self, x: Any) -> Any:
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)


def inverted(table: tuple[tuple[int, ...], ...], first: int, last: int, act: Any, squeeze: bool, width: int = 1) -> Any:
    """A network of inverted residuals; rows are expansion, channels, repeats, stride, kernel."""
    c = first // width
    layers = [conv_norm(3, c, 3, 2, act=act)]
    for expand, out, repeats, stride, kernel in table:
        for i in range(repeats):
            o = max(out // width, 4)
            layers.append(Inverted(c, o, kernel, stride if not i else 1, expand, act, squeeze))
            c = o
    layers.append(conv_norm(c, last // width, 1, act=act))
    return classifier(nn.Sequential(*layers), last // width)


MOBILENET_V2 = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)  # fmt: skip
EFFICIENTNET_B0 = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip


class LayerNorm2d(nn.LayerNorm):  # type: ignore[misc]
    """Layer norm over the channels of images."""

    def forward(self, x: Any) -> Any:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):  # type: ignore[misc]
    """A block of ConvNeXt (arXiv 2201.03545)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(c, c, 7, padding=3, groups=c)
        self.norm = nn.LayerNorm(c, eps=1e-6)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c)
        self.gamma = nn.Parameter(torch.full((c,), 0.1))

    def forward(self, x: Any) -> Any:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext(counts: tuple[int, ...] = (3, 3, 9, 3), width: int = 1) -> Any:
    """ConvNeXt-T."""
    layers: list[Any] = []
    for stage, count in enumerate(counts):
        c = (96 << stage) // width
        layers += [LayerNorm2d(c // 2, eps=1e-6)] if stage else []
        layers.append(nn.Conv2d(c // 2, c, 2, 2) if stage else nn.Conv2d(3, c, 4, 4))
        layers += [LayerNorm2d(c, eps=1e-6)] if not stage else []
        layers += [ConvNeXtBlock(c) for _ in range(count)]
    return classifier(nn.Sequential(*layers), c)


class YOLOConv(nn.Module):  # type: ignore[misc]
    """YOLO's convolution, norm and SiLU."""

    def __init__(self, c: int, o: int, k: int = 1, s: int = 1) -> None:
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(c, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o, 1e-3), nn.SiLU(True)

    def forward(self, x: Any) -> Any:
        return self.act(self.bn(self.conv(x)))


class YOLOBottleneck(nn.Module):  # type: ignore[misc]
    """Two convolutions and, in the backbone, a residual after the activation."""

    def __init__(self, c: int, add: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = YOLOConv(c, c, 3), YOLOConv(c, c, 3), add

    def forward(self, x: Any) -> Any:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C2f(nn.Module):  # type: ignore[misc]
    """YOLOv8's stage."""

    def __init__(self, c: int, o: int, n: int, add: bool) -> None:
        super().__init__()
        self.c = o // 2
        self.cv1, self.cv2 = YOLOConv(c, o), YOLOConv((2 + n) * self.c, o)
        self.m = nn.ModuleList([YOLOBottleneck(self.c, add) for _ in range(n)])

    def forward(self, x: Any) -> Any:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class SPPF(nn.Module):  # type: ignore[misc]
    """Spatial pyramid pooling."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2, self.m = YOLOConv(c, c // 2), YOLOConv(2 * c, c), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Any) -> Any:
        y = [self.cv1(x)]
        y.extend(self.m(y[-1]) for _ in range(3))
        return self.cv2(torch.cat(y, 1))


class YOLO(nn.Module):  # type: ignore[misc]
    """A detector like YOLOv8n: backbone, top-down and bottom-up paths, three heads."""

    def __init__(self, base: int = 16) -> None:
        super().__init__()
        b = base
        self.p2 = nn.Sequential(YOLOConv(3, b, 3, 2), YOLOConv(b, 2 * b, 3, 2), C2f(2 * b, 2 * b, 1, True))
        self.p3 = nn.Sequential(YOLOConv(2 * b, 4 * b, 3, 2), C2f(4 * b, 4 * b, 2, True))
        self.p4 = nn.Sequential(YOLOConv(4 * b, 8 * b, 3, 2), C2f(8 * b, 8 * b, 2, True))
        self.p5 = nn.Sequential(YOLOConv(8 * b, 16 * b, 3, 2), C2f(16 * b, 16 * b, 1, True), SPPF(16 * b))
        self.up4, self.up3 = C2f(24 * b, 8 * b, 1, False), C2f(12 * b, 4 * b, 1, False)
        self.down3, self.down4 = YOLOConv(4 * b, 4 * b, 3, 2), YOLOConv(8 * b, 8 * b, 3, 2)
        self.out4, self.out5 = C2f(12 * b, 8 * b, 1, False), C2f(24 * b, 16 * b, 1, False)
        self.box, self.kind = (
            nn.ModuleList(
                nn.Sequential(YOLOConv(c, o, 3), YOLOConv(o, o, 3), nn.Conv2d(o, n, 1)) for c in (4 * b, 8 * b, 16 * b)
            )
            for o, n in ((4 * b, 64), (5 * b, 80))
        )

    def forward(self, x: Any) -> Any:
        p3 = self.p3(self.p2(x))
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        m4 = self.up4(torch.cat([F.interpolate(p5, scale_factor=2), p4], 1))
        m3 = self.up3(torch.cat([F.interpolate(m4, scale_factor=2), p3], 1))
        n4 = self.out4(torch.cat([self.down3(m3), m4], 1))
        n5 = self.out5(torch.cat([self.down4(n4), p5], 1))
        levels = zip((m3, n4, n5), self.box, self.kind, strict=True)
        return torch.cat([torch.cat([box(y), kind(y)], 1).flatten(2) for y, box, kind in levels], 2)


class Pyramid(nn.Module):  # type: ignore[misc]
    """A head like DeepLabV3's (arXiv 1706.05587): dilated convolutions side by side."""

    def __init__(self, channels: int = 512, out: int = 256, rates: tuple[int, ...] = (6, 12, 18)) -> None:
        super().__init__()
        branches = [conv_norm(channels, out, 1, act=nn.ReLU)]
        for rate in rates:
            wide = nn.Conv2d(channels, out, 3, padding=rate, dilation=rate, bias=False)
            branches.append(nn.Sequential(wide, nn.BatchNorm2d(out), nn.ReLU()))
        self.branches = nn.ModuleList(branches)
        self.project = conv_norm(len(branches) * out, out, 1, act=nn.ReLU)
        self.last = nn.Sequential(conv_norm(out, out, 3, act=nn.ReLU), nn.Conv2d(out, 21, 1))

    def forward(self, x: Any) -> Any:
        return self.last(self.project(torch.cat([branch(x) for branch in self.branches], 1)))


class VAEBlock(nn.Module):  # type: ignore[misc]
    """A residual block with group norms (arXiv 2112.10752)."""

    def __init__(self, c: int, o: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, c, 1e-6), nn.Conv2d(c, o, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, o, 1e-6), nn.Conv2d(o, o, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c, o, 1) if c != o else None

    def forward(self, x: Any) -> Any:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + y


class VAEDecoder(nn.Module):  # type: ignore[misc]
    """The decoder of Stable Diffusion's autoencoder."""

    def __init__(self, sizes: tuple[int, ...] = (512, 512, 256, 128), groups: int = 32, latent: int = 4) -> None:
        super().__init__()
        c = sizes[0]
        self.post, self.first = nn.Conv2d(latent, latent, 1), nn.Conv2d(latent, c, 3, padding=1)
        self.mid1, self.mid2 = VAEBlock(c, c, groups), VAEBlock(c, c, groups)
        self.norm, self.qkv, self.proj = nn.GroupNorm(groups, c, 1e-6), nn.Linear(c, 3 * c), nn.Linear(c, c)
        blocks, ups = [], []
        for i, o in enumerate(sizes):
            blocks.append(nn.Sequential(*(VAEBlock(c if not k else o, o, groups) for k in range(3))))
            ups.append(nn.Conv2d(o, o, 3, padding=1) if i < len(sizes) - 1 else nn.Identity())
            c = o
        self.blocks, self.ups = nn.ModuleList(blocks), nn.ModuleList(ups)
        self.norm_out, self.last = nn.GroupNorm(groups, c, 1e-6), nn.Conv2d(c, 3, 3, padding=1)

    def attention(self, x: Any) -> Any:
        """One head over all pixels."""
        q, k, v = self.qkv(self.norm(x).flatten(2).transpose(1, 2)).unsqueeze(1).chunk(3, -1)
        y = self.proj(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        return x + y.transpose(1, 2).reshape(x.shape)

    def forward(self, z: Any) -> Any:
        x = self.mid2(self.attention(self.mid1(self.first(self.post(z)))))
        for i, (blocks, up) in enumerate(zip(self.blocks, self.ups, strict=True)):
            x = blocks(x)
            if i < len(self.ups) - 1:
                x = up(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(F.silu(self.norm_out(x)))


class Network(NamedTuple):
    """A network, whole or narrow, and the shape of its input without the batch."""

    title: str
    whole: Callable[[], Any]
    narrow: Callable[[], Any]
    image: tuple[int, int, int]
    small: tuple[int, int, int]


_PHOTO, _TINY = (3, 224, 224), (3, 32, 32)

NETWORKS: dict[str, Network] = {
    "vgg16": Network("VGG-16 features", lambda: vgg(VGG16), lambda: vgg(VGG16, 8), _PHOTO, _TINY),
    "vgg11_bn": Network(
        "VGG-11, batch norm", lambda: vgg(VGG11, normed=True), lambda: vgg(VGG11, 8, True), _PHOTO, _TINY
    ),
    "resnet18": Network(
        "ResNet-18", lambda: ResNet((2, 2, 2, 2), False), lambda: ResNet((1, 2), False, 4), _PHOTO, _TINY
    ),
    "resnet50": Network(
        "ResNet-50", lambda: ResNet((3, 4, 6, 3), True), lambda: ResNet((1, 2), True, 4), _PHOTO, _TINY
    ),
    "unet": Network("U-Net", UNet, lambda: UNet(4), (3, 256, 256), _TINY),
    "esrgan": Network("ESRGAN, 6 RRDB", ESRGAN, lambda: ESRGAN(1, 8, 4), (3, 96, 96), (3, 12, 12)),
    "vae": Network(
        "VAE decoder", VAEDecoder, lambda: VAEDecoder((16, 8, 8), 4), (4, 32, 32), (4, 8, 8)
    ),
    "deeplab": Network("dilated head", Pyramid, lambda: Pyramid(8, 8, (2, 3)), (512, 65, 65), (8, 12, 12)),
    "mobilenet_v2": Network(
        "MobileNetV2",
        lambda: inverted(MOBILENET_V2, 32, 1280, nn.ReLU6, False),
        lambda: inverted(MOBILENET_V2[:3], 32, 64, nn.ReLU6, False, 4),
        _PHOTO, _TINY,
    ),
    "efficientnet_b0": Network(
        "EfficientNet-B0",
        lambda: inverted(EFFICIENTNET_B0, 32, 1280, nn.SiLU, True),
        lambda: inverted(EFFICIENTNET_B0[:3], 32, 64, nn.SiLU, True, 4),
        _PHOTO, _TINY,
    ),
    "convnext_t": Network("ConvNeXt-T", convnext, lambda: convnext((1, 1), 8), _PHOTO, _TINY),
    "yolov8n": Network("like YOLOv8n", YOLO, lambda: YOLO(4), (3, 640, 640), (3, 64, 64)),
}  # fmt: skip
"""By name, with the image that each is measured with."""


def make(name: str, narrow: bool = False, batch: int = 1) -> tuple[Any, Any]:
    """A network in inference with norms that say something, and images for it.

    Parameters
    ----------
    name : str
        Of `NETWORKS`.
    narrow : bool
        Few channels and small images.
    batch : int

    Returns
    -------
    tuple of Module and Tensor
        The same at each call.
    """
    network = NETWORKS[name]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = (network.narrow if narrow else network.whole)().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0.0, 0.1)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        return model, torch.randn(batch, *(network.small if narrow else network.image))
