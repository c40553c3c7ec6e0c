"""The four networks, in torch.

All take the bundle's features ``[N, F]``; the filter and the GNN also take edges ``[2, E]`` and give
a logit for each. Angles about the beam line enter as differences (or, in the embedding, as a unit
vector), so there is no seam at +-pi.

    N  hits    E  edges    F  features    D  embedding dimensions    H  width of the hidden layers
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from trackserve.pipeline.features import FeatureColumns

METRE = 1000.0
"""Lengths enter the networks in metres, the size of the detector."""


class HitInputs(nn.Module):
    """What the networks see of one hit: r and z (m), phi (rad), pseudorapidity, further features."""

    def __init__(self, columns: FeatureColumns) -> None:
        super().__init__()
        names = list(columns.columns)
        self.r, self.phi, self.z = (names.index(name) for name in ("r", "phi", "z"))
        self.further = [i for i, name in enumerate(names) if name not in {"r", "phi", "z"}]
        self.scale = dict(zip(names, columns.scales, strict=True))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return r, phi, z and eta, each ``[N]``."""
        r = features[:, self.r] * (self.scale["r"] / METRE)
        phi = features[:, self.phi] * self.scale["phi"]
        z = features[:, self.z] * (self.scale["z"] / METRE)
        slope = z / r.clamp(min=1e-3)
        # log(|s| + sqrt(s^2 + 1)) loses nothing at large negative s, where asinh's usual form cancels
        eta = torch.sign(slope) * torch.log(slope.abs() + torch.sqrt(slope * slope + 1))
        return r, phi, z, eta


def mlp(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    """Return ``layers`` hidden layers of ReLU and a linear output."""
    widths = [inputs] + [hidden] * layers
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-1], outputs))


SPREAD = 30.0
"""How many times wider than torch's the last layer of an embedding begins."""


class Embedding(nn.Module):
    """Network 1: features ``[N, F]`` to points ``[N, D]``."""

    def __init__(self, columns: FeatureColumns, *, width: int, layers: int, dimension: int) -> None:
        super().__init__()
        self.inputs = HitInputs(columns)
        self.network = mlp(7 + len(self.inputs.further), width, dimension, layers)
        # Hits start far apart: else all of them are neighbours at first, and looking them up takes seconds.
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        last.weight.data *= SPREAD

    def forward(self, features: Tensor) -> Tensor:
        """Return the embedding ``[N, D]``."""
        r, phi, z, eta = self.inputs(features)
        cos, sin = torch.cos(phi), torch.sin(phi)
        seen = [r, z, eta / 4, cos, sin, r * cos, r * sin]
        seen += [features[:, i] for i in self.inputs.further]
        points: Tensor = self.network(torch.stack(seen, dim=1))
        return points


HIT_INPUTS = 3
PAIR_INPUTS = 7


class PairInputs(nn.Module):
    """What the filter and the GNN see of hits alone and of pairs of hits.

    For a hit r, z, eta. For a pair, from the inner to the outer hit: the differences in r, z, phi
    and eta, the slopes dphi/dr (proportional to curvature) and the z at which the straight line
    through both meets the beam line, and the length of the step; each scaled to be of order 1.
    """

    def __init__(self, columns: FeatureColumns) -> None:
        super().__init__()
        self.inputs = HitInputs(columns)

    @property
    def hit_inputs(self) -> int:
        """Number of inputs of a hit."""
        return HIT_INPUTS + len(self.inputs.further)

    def forward(self, features: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of hits ``[N, 3 + further]`` and of pairs ``[E, 7]``."""
        r, phi, z, eta = self.inputs(features)
        hits = torch.stack([r, z / 2, eta / 2], dim=1)
        if self.inputs.further:
            hits = torch.cat([hits, features[:, self.inputs.further]], dim=1)
        columns = torch.stack([r, phi, z, eta], dim=1)
        inner = columns.index_select(0, edges[0])
        step = columns.index_select(0, edges[1]) - inner
        dr, dphi, dz, deta = step.unbind(dim=1)
        dphi = dphi - (2 * math.pi) * torch.round(dphi / (2 * math.pi))
        lever = torch.sign(dr) * dr.abs().clamp(min=1e-3)
        lever = torch.where(lever == 0, torch.full_like(lever, 1e-3), lever)
        curvature = dphi / lever
        z0 = inner[:, 2] - inner[:, 0] * dz / lever
        pairs = torch.stack(
            [
                10 * dr,
                5 * dz,
                30 * dphi,
                20 * deta,
                (3 * curvature).clamp(-5, 5),
                (10 * z0).clamp(-5, 5),
                5 * torch.sqrt(dr * dr + dz * dz),
            ],
            dim=1,
        )
        return hits, pairs


class PairLayer(nn.Module):
    """A linear layer on (pair, inner hit, outer hit) that multiplies each hit only once.

    The weights of the two hits are applied to hits ``[N, .]`` and gathered afterwards, which costs
    N products in place of E.
    """

    def __init__(self, pair: int, hit: int, outputs: int) -> None:
        super().__init__()
        self.pair = nn.Linear(pair, outputs)
        self.inner = nn.Linear(hit, outputs, bias=False)
        self.outer = nn.Linear(hit, outputs, bias=False)

    def forward(self, pairs: Tensor, hits: Tensor, edges: Tensor) -> Tensor:
        """Return ``[E, outputs]``."""
        inner = self.inner(hits).index_select(0, edges[0])
        outer = self.outer(hits).index_select(0, edges[1])
        result: Tensor = self.pair(pairs) + inner + outer
        return result


class Filter(nn.Module):
    """Network 2: a logit ``[E]`` for each pair of hits, from the pair alone."""

    def __init__(self, columns: FeatureColumns, *, width: int, layers: int) -> None:
        super().__init__()
        self.inputs = PairInputs(columns)
        self.first = PairLayer(PAIR_INPUTS, self.inputs.hit_inputs, width)
        self.rest = nn.Sequential(nn.ReLU(), mlp(width, width, 1, layers - 1))

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return the logit of each edge ``[E]``."""
        hits, pairs = self.inputs(features, edges)
        logits: Tensor = self.rest(self.first(pairs, hits, edges))
        return logits.squeeze(1)


TRIPLET_INPUTS = 9


def soft(x: Tensor, scale: float) -> Tensor:
    """Return x / (scale + |x|): its sign, and how many times larger than ``scale`` it is."""
    return x / (scale + x.abs())


class TripletInputs(nn.Module):
    """What networks see of edges and of triplets: two edges that meet in a hit.

    An edge is seen as its pair with both its hits. A triplet is seen as the kink between its two
    edges along the beam and in the transverse plane, there beyond what a helix from the beam line
    turns: as an angle, and as the distance (m) by which the middle hit lies off.
    """

    def __init__(self, columns: FeatureColumns) -> None:
        super().__init__()
        self.inputs = HitInputs(columns)
        self.pairs = PairInputs(columns)

    @property
    def edge_inputs(self) -> int:
        """Number of inputs of an edge."""
        return PAIR_INPUTS + 2 * self.pairs.hit_inputs

    @property
    def triplet_inputs(self) -> int:
        """Number of inputs of a triplet: its own, and its two edges with three hits."""
        return TRIPLET_INPUTS + 2 * PAIR_INPUTS + 3 * self.pairs.hit_inputs

    def forward(self, features: Tensor, edges: Tensor, triplets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs of edges ``[E, .]`` and of triplets ``[T, .]``."""
        hits, pairs = self.pairs(features, edges)
        of_inner, of_outer = hits.index_select(0, edges[0]), hits.index_select(0, edges[1])
        of_edges = torch.cat([pairs, of_inner, of_outer], dim=1)
        first, second = of_edges.index_select(0, triplets[0]), of_edges.index_select(0, triplets[1])
        outermost = second[:, PAIR_INPUTS + self.pairs.hit_inputs :]
        shape = self._shape(self._chords(features, edges), triplets)
        of_triplets = torch.cat([shape, first, second[:, :PAIR_INPUTS], outermost], dim=1)
        return of_edges, of_triplets

    def _chords(self, features: Tensor, edges: Tensor) -> Tensor:
        """Return for each edge what a triplet is worked out from ``[E, 7]``.

        Its transverse components along and across the radius of its inner and of its outer hit, its
        transverse length, its length along the beam (m), and twice its turn about the beam line.
        """
        r, phi, z, _ = self.inputs(features)
        columns = torch.stack([r, phi, z], dim=1)
        r_inner, phi_inner, z_inner = columns.index_select(0, edges[0]).unbind(dim=1)
        r_outer, phi_outer, z_outer = columns.index_select(0, edges[1]).unbind(dim=1)
        dphi = phi_outer - phi_inner
        dphi = dphi - (2 * math.pi) * torch.round(dphi / (2 * math.pi))
        square = dphi * dphi
        sin = dphi * (1 - square * (1 / 6 - square / 120))
        less = square * (1 / 2 - square * (1 / 24 - square / 720))  # 1 - cos
        dr = r_outer - r_inner
        along_inner, across_inner = dr - r_outer * less, r_outer * sin
        along_outer, across_outer = dr + r_inner * less, r_inner * sin
        length = torch.sqrt(along_inner * along_inner + across_inner * across_inner) + 1e-6
        return torch.stack(
            [
                along_inner,
                across_inner,
                along_outer,
                across_outer,
                length,
                z_outer - z_inner,
                2 * sin / length,
            ],
            dim=1,
        )

    def _shape(self, chords: Tensor, triplets: Tensor) -> Tensor:
        """Return the triplets' own inputs ``[T, 9]``."""
        _, _, ux, uy, u, uz, u_curvature = chords.index_select(0, triplets[0]).unbind(dim=1)
        vx, vy, _, _, v, vz, v_curvature = chords.index_select(0, triplets[1]).unbind(dim=1)
        turn = (ux * vy - uy * vx) / (u * v)
        bend = turn - (u_curvature + v_curvature) * (u + v) / 4
        off = bend * u * v / (u + v)
        lengths = torch.sqrt(u * u + uz * uz), torch.sqrt(v * v + vz * vz)
        area = u * vz - v * uz
        kink = area / (lengths[0] * lengths[1])
        off_along = area / (lengths[0] + lengths[1])
        return torch.stack(
            [
                soft(kink, 2e-3),
                soft(kink, 5e-2),
                soft(off_along, 1e-4),
                soft(off_along, 2e-3),
                soft(bend, 1e-3),
                soft(bend, 3e-2),
                soft(off, 3e-5),
                soft(off, 5e-4),
                soft(u_curvature - v_curvature, 2e-2),
            ],
            dim=1,
        )


class TripletFilter(nn.Module):
    """A logit ``[T]`` for each triplet, from its three hits alone."""

    def __init__(self, columns: FeatureColumns, *, width: int, layers: int) -> None:
        super().__init__()
        self.inputs = TripletInputs(columns)
        self.network = mlp(self.inputs.triplet_inputs, width, 1, layers)

    def forward(self, features: Tensor, edges: Tensor, triplets: Tensor) -> Tensor:
        """Return the logit of each triplet ``[T]``."""
        _, inputs = self.inputs(features, edges, triplets)
        logits: Tensor = self.network(inputs)
        return logits.squeeze(1)


class MessagePassing(nn.Module):
    """One step of an interaction network: messages from links to nodes and back (arXiv:1612.00222)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.node = nn.Sequential(
            nn.Linear(3 * width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.link = PairLayer(width, width, width)
        self.link_rest = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, nodes: Tensor, links: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new states of nodes ``[E, H]`` and of the links ``[T, H]`` between them."""
        none = torch.zeros_like(nodes)
        from_outside = none.index_add(0, ends[0], links)
        from_inside = none.index_add(0, ends[1], links)
        nodes = nodes + self.node(torch.cat([nodes, from_inside, from_outside], dim=1))
        links = links + self.link_rest(self.link(links, nodes, ends))
        return nodes, links


class Gnn(nn.Module):
    """Network 4: an interaction network that scores edges ``[E]`` after ``steps`` of messages.

    Its nodes are the edges, linked where two of them make a triplet: whether an edge belongs to a
    track shows in whether others go on in its direction.
    """

    def __init__(self, columns: FeatureColumns, *, width: int, steps: int) -> None:
        super().__init__()
        self.inputs = TripletInputs(columns)
        self.encode_edge = mlp(self.inputs.edge_inputs, width, width, 1)
        self.encode_triplet = mlp(self.inputs.triplet_inputs, width, width, 1)
        self.steps = nn.ModuleList(MessagePassing(width) for _ in range(steps))
        self.score = mlp(width, width, 1, 1)

    def forward(self, features: Tensor, edges: Tensor, triplets: Tensor) -> Tensor:
        """Return the logit of each edge ``[E]``."""
        of_edges, of_triplets = self.inputs(features, edges, triplets)
        nodes, links = self.encode_edge(of_edges), self.encode_triplet(of_triplets)
        for step in self.steps:
            nodes, links = step(nodes, links, triplets)
        logits: Tensor = self.score(nodes)
        return logits.squeeze(1)
