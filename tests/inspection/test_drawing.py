import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

import batvit
from batvit.core import Assignment
from batvit.inspection import drawing
from batvit.inspection.panel import (
    ATTENTIVE_BORDER,
    BORDER_ON_DARK,
    EMPTY,
    HATCH,
    INATTENTIVE_BORDER,
)
from batvit.inspection.tracing import SiteTrace, Trace, trace
from batvit.plans.plan import Counts

# four attentive groups (0 is scattered), two clusters, one pruned patch
GROUPS = ((0, 1, 1, 4), (2, 0, 4, 4), (3, 3, 5, -1))
GRID, ATTENTIVE, PATCH = (3, 4), 4, 10


def vit(height: int = 48, width: int = 64, depth: int = 4) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=(height, width),
        patch_size=16,
        embed_dim=16,
        depth=depth,
        num_heads=2,
        num_classes=3,
    ).eval()


def hand_made(
    *images: tuple[tuple[int, ...], ...], attentive: int = ATTENTIVE, sites: int = 1
) -> Trace:
    index = torch.tensor(images or (GROUPS,)).flatten(1)
    origin = Assignment.from_index(index)
    counts = Counts(1, index.shape[1], attentive + 1, 1, origin.groups - attentive, origin.groups)
    site = SiteTrace(counts, origin, origin.sizes.float())
    return Trace(vit(), image_size=(48, 64), sites=[site] * sites)


def photograph(
    grid: tuple[int, int] = GRID, patch: int = PATCH, low: int = 60, high: int = 256
) -> Image.Image:
    shape = (grid[0] * patch, grid[1] * patch, 3)
    return Image.fromarray(np.random.default_rng(0).integers(low, high, shape, dtype=np.uint8))


def panels(picture: Image.Image, grid: tuple[int, int], count: int) -> tuple[list[np.ndarray], int]:
    """The pixels of each panel of a strip whose titles are narrow, and the side of a patch."""
    scale = max(16, -(-drawing.PANEL // max(grid)))
    height, width = grid[0] * scale, grid[1] * scale
    pixels = np.asarray(picture)[drawing.HEADER :]
    lefts = [drawing.GAP + i * (width + drawing.GAP) for i in range(count)]
    assert picture.width == lefts[-1] + width + drawing.GAP
    return [pixels[:height, left : left + width] for left in lefts], scale


def mean_colour(image: Image.Image, group: int) -> np.ndarray:
    pixels = np.asarray(image, dtype=float)
    members = [
        pixels[r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH].reshape(-1, 3)
        for r in range(3)
        for c in range(4)
        if GROUPS[r][c] == group
    ]
    return np.concatenate(members).mean(axis=0)


def centre(panel: np.ndarray, scale: int, row: int, column: int) -> np.ndarray:
    return panel[row * scale + scale // 2, column * scale + scale // 2].astype(float)


class TestDraw:
    def test_attentive_groups_have_their_mean_colour_wherever_they_are(self):
        image = photograph()
        (_, panel), scale = panels(drawing.draw(image, hand_made()), GRID, 2)
        for row, column in np.ndindex(3, 4):
            group = GROUPS[row][column]
            if 0 <= group < ATTENTIVE:
                assert centre(panel, scale, row, column) == pytest.approx(
                    mean_colour(image, group), abs=0.5
                )

    def test_inattentive_groups_are_one_colour_lighter_and_greyer_than_their_mean(self):
        image = Image.new("RGB", (40, 30), (200, 120, 40))
        (_, panel), scale = panels(drawing.draw(image, hand_made()), GRID, 2)
        first = centre(panel, scale, 0, 3)
        assert (first == centre(panel, scale, 1, 2)).all()
        assert (first > (200, 120, 40)).all()
        assert np.ptp(first) < np.ptp((200, 120, 40))
        assert (centre(panel, scale, 0, 0) == (200, 120, 40)).all()

    def test_every_patch_is_plain_but_for_borders_and_hatching(self):
        (_, panel), scale = panels(drawing.draw(photograph(), hand_made()), GRID, 2)
        for row, column in np.ndindex(3, 4):
            inside = panel[
                row * scale + 1 : (row + 1) * scale - 1,
                column * scale + 1 : (column + 1) * scale - 1,
            ]
            colours = np.unique(inside.reshape(-1, 3), axis=0)
            expected = (
                [[HATCH] * 3, [EMPTY] * 3] if GROUPS[row][column] < 0 else colours[:1].tolist()
            )
            assert colours.tolist() == expected

    def test_a_border_runs_exactly_between_groups_in_the_colour_of_each_side(self):
        (_, panel), scale = panels(drawing.draw(photograph(), hand_made()), GRID, 2)
        for row, column in np.ndindex(3, 4):
            group, middle = GROUPS[row][column], centre(panel, scale, row, column)
            top, left, half = row * scale, column * scale, scale // 2
            last = scale - 1
            for dr, dc, y, x in (
                (-1, 0, 0, half),
                (1, 0, last, half),
                (0, -1, half, 0),
                (0, 1, half, last),
            ):
                r, c = row + dr, column + dc
                meets_another = 0 <= r < 3 and 0 <= c < 4 and GROUPS[r][c] != group
                border = ATTENTIVE_BORDER if 0 <= group < ATTENTIVE else INATTENTIVE_BORDER
                found = panel[top + y, left + x]
                if meets_another:
                    assert (found == border).all()
                elif group >= 0:
                    assert (found == middle).all()

    def test_pixels_at_the_edge_that_are_in_no_patch_are_left_out(self):
        x = torch.randn(1, 3, 50, 70, generator=torch.Generator().manual_seed(0))
        with trace(batvit.patch(vit(50, 70), keep_rate=0.5, align=1)) as found, torch.no_grad():
            found.model(x)
        assert (found.grid, found.covered) == ((3, 4), (48, 64))
        image = photograph((5, 7), low=0)
        seen = Trace(vit(), image_size=(48, 64), sites=found.sites)
        assert seen.covered == (48, 64)
        assert (
            drawing.draw(image, found).tobytes()
            == drawing.draw(image.crop((0, 0, 64, 48)), seen).tobytes()
        )

    def test_a_model_that_saw_a_part_is_refused(self):
        found = hand_made(((0, 1, 1, 4), (2, 3, 4, 4)))
        with pytest.raises(
            ValueError, match=r"the model saw 8 of 3 x 4 patches; it must see all: call model.eval"
        ):
            drawing.draw(photograph(), found)

    def test_borders_of_dark_attentive_groups_can_be_seen(self):
        (_, panel), scale = panels(drawing.draw(Image.new("RGB", (40, 30)), hand_made()), GRID, 2)
        assert (centre(panel, scale, 1, 0) == 0).all()
        assert (panel[scale, scale // 2] == BORDER_ON_DARK).all()

    def test_one_group_has_no_border(self):
        (_, panel), _ = panels(
            drawing.draw(photograph(), hand_made(((0,) * 4,) * 3, attentive=1)), GRID, 2
        )
        assert len(np.unique(panel.reshape(-1, 3), axis=0)) == 1

    def test_the_first_panel_is_the_image(self):
        image = photograph(patch=112)
        (first, _), _ = panels(drawing.draw(image, hand_made()), GRID, 2)
        smaller = np.asarray(image.resize((first.shape[1], first.shape[0])))
        assert (first == smaller).all()

    def test_index_chooses_the_image_of_the_batch(self):
        other = ((0, 1, 2, 3), (4, 5, 0, 0), (0, 0, 0, 0))
        both, alone = hand_made(((0, 1, 2, 3), (4, 5, 5, 5), (5,) * 4), other), hand_made(other)
        assert drawing.draw(photograph(), both, index=1) == drawing.draw(photograph(), alone)
        assert drawing.draw(photograph(), both, index=0) != drawing.draw(photograph(), alone)

    def test_the_image_may_have_any_mode_and_size(self):
        grey = Image.new("L", (43, 31), 90)
        (first, panel), scale = panels(drawing.draw(grey, hand_made()), GRID, 2)
        assert (first == 90).all()
        assert (centre(panel, scale, 0, 0) == 90).all()

    def test_it_is_deterministic_and_leaves_the_image_alone(self):
        image = photograph()
        before = image.tobytes()
        assert drawing.draw(image, hand_made()) == drawing.draw(image, hand_made())
        assert image.tobytes() == before

    def test_narrow_panels_get_columns_as_wide_as_their_titles(self):
        model = vit(160, 16)
        origin = Assignment.identity(1, 10)
        record = Trace(
            model, (160, 16), [SiteTrace(Counts(1, 10, 10, 0, 0, 10), origin, origin.sizes.float())]
        )
        picture = drawing.draw(photograph((10, 1)), record)
        margin = np.asarray(picture)[:, -drawing.GAP :]
        assert (margin == 255).all()
        assert picture.width > 2 * 100

    @pytest.mark.parametrize(("method", "drops"), [("bat", False), ("topk", True)])
    def test_a_real_trace(self, method, drops):
        model = batvit.patch(vit(96, 128, depth=4), method=method, keep_rate=0.6)
        with trace(model) as record, torch.no_grad():
            model(torch.randn(2, 3, 96, 128))
        found, scale = panels(
            drawing.draw(photograph((6, 8), patch=16), record, index=1), (6, 8), 4
        )
        for panel, site in zip(found[1:], record.sites, strict=True):
            kept = site.origin.kept[1].reshape(6, 8)
            hatched = [
                (panel[r * scale : (r + 1) * scale, c * scale : (c + 1) * scale] == HATCH)
                .all(axis=-1)
                .any()
                for r, c in np.ndindex(6, 8)
            ]
            assert hatched == (~kept).flatten().tolist()
            assert any(hatched) == drops

    def test_errors_name_the_value_and_the_remedy(self):
        with pytest.raises(ValueError, match=r"no sites.*inside the with block"):
            drawing.draw(photograph(), Trace(vit()))
        with pytest.raises(
            ValueError, match=r"image 1 is not in the traced batch of 1; give an index in 0 \.\. 0"
        ):
            drawing.draw(photograph(), hand_made(), index=1)
        with pytest.raises(ValueError, match="image -1"):
            drawing.draw(photograph(), hand_made(), index=-1)
        with pytest.raises(
            ValueError, match=r"40 x 40 .* saw 64 x 48; pass the crop that the model saw"
        ):
            drawing.draw(Image.new("RGB", (40, 40)), hand_made())
        drawing.draw(Image.new("RGB", (83, 60)), hand_made())


class TestTitles:
    @pytest.mark.parametrize(
        ("counts", "pruned", "title"),
        [
            (
                Counts(3, 196, 107, 10, 41, 138),
                0,
                "after block 3: 138 tokens\n97 attentive, 41 clusters",
            ),
            (Counts(9, 9, 1, 0, 1, 2), 0, "after block 9: 2 tokens\n1 attentive, 1 cluster"),
            (Counts(9, 9, 1, 0, 0, 1), 195, "after block 9: 1 token\n1 attentive, 195 pruned"),
        ],
    )
    def test_title(self, counts, pruned, title):
        origin = Assignment.identity(1, 4)
        groups = np.repeat([-1, 0], (pruned, 196 - pruned)).reshape(14, 14)
        assert (
            drawing._title(SiteTrace(counts, origin, origin.sizes.float()), groups, "attentive")
            == title
        )

    def test_the_font_is_the_largest_that_fits(self):
        lines = ["after block 3: 138 tokens", "97 attentive"]
        wide, narrow, too_narrow = (drawing._font(lines, width) for width in (400, 170, 20))
        assert wide[0].size == drawing.LARGEST_FONT
        assert drawing.SMALLEST_FONT < narrow[0].size < drawing.LARGEST_FONT
        assert narrow[1] <= 170
        assert too_narrow[0].size == drawing.SMALLEST_FONT
        assert too_narrow[1] > 20

    def test_the_legend_shows_what_occurs(self):
        pruned = ((0, 1, -1, -1), (2, 3, -1, -1), (4, 5, -1, -1))
        kinds = [
            drawing.draw(photograph(), hand_made(groups, attentive=attentive, sites=2))
            for groups, attentive in (
                (((0, 1, 2, 3),) * 3, 4),
                (pruned, 6),
                (((0, 1, 2, 3),) * 3, 2),
                (GROUPS, 4),
            )
        ]
        ends = [
            np.flatnonzero(np.asarray(picture)[-drawing.SWATCH :].min(axis=(0, 2)) < 200).max()
            for picture in kinds
        ]
        assert ends == sorted(set(ends))
        assert ends[-1] < kinds[-1].width - drawing.GAP
        mixed = hand_made(((0, 1, 2, 3),) * 3)
        mixed.sites += hand_made(GROUPS).sites
        legend = np.asarray(drawing.draw(photograph(), mixed))[-drawing.SWATCH :]
        assert (legend == np.asarray(kinds[-1])[-drawing.SWATCH :]).all()


class TestDrawMany:
    def test_strips_are_stacked_in_order_above_one_legend(self):
        other = ((0, 1, 2, 3), (4, 5, 0, 0), (0, 0, 0, 0))
        record = hand_made(((0, 1, 2, 3), (4, 5, 5, 5), (5,) * 4), other)
        images = [photograph(), photograph(low=100)]
        stack = np.asarray(drawing.draw_many(images, record))
        legend = drawing.SWATCH + 2 * drawing.GAP
        height = (len(stack) - legend) // 2
        for i, image in enumerate(images):
            alone = np.asarray(drawing.draw(image, record, index=i, title=f"image {i}"))
            assert (stack[i * height : (i + 1) * height] == alone[:-legend]).all()
            assert (stack[-legend:] == alone[-legend:]).all()

    def test_errors(self):
        with pytest.raises(ValueError, match="images is empty"):
            drawing.draw_many([], hand_made())
        with pytest.raises(ValueError, match="image 1 is not in the traced batch of 1"):
            drawing.draw_many([photograph(), photograph()], hand_made())


class TestFromTensor:
    mean, std = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD

    def test_gives_back_the_very_crop(self):
        image = photograph(low=0)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        normalised = (pixels - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(
            3, 1, 1
        )
        assert drawing.from_tensor(normalised, self.mean, self.std) == image
        rough = np.asarray(
            drawing.from_tensor(normalised.bfloat16(), self.mean, self.std), dtype=int
        )
        assert abs(rough - np.asarray(image, dtype=int)).max() <= 2

    def test_values_beyond_the_range_are_clipped(self):
        image = torch.tensor([-9.0, 9.0]).expand(3, 1, 2)
        assert np.asarray(drawing.from_tensor(image, self.mean, self.std)).tolist() == [
            [[0] * 3, [255] * 3]
        ]

    @pytest.mark.parametrize(
        ("image", "mean", "message"),
        [
            (torch.zeros(1, 3, 4, 4), mean, r"\(1, 3, 4, 4\); of a batch give images\[0\]"),
            (torch.zeros(1, 4, 4), mean, r"\(1, 4, 4\)"),
            (torch.zeros(3, 4, 4, dtype=torch.uint8), mean, "uint8"),
            (torch.full((3, 4, 4), torch.nan), mean, "finite"),
            (torch.zeros(3, 4, 4), (0.5,), r"\(0.5,\)"),
        ],
    )
    def test_errors(self, image, mean, message):
        with pytest.raises(ValueError, match=message):
            drawing.from_tensor(image, mean, self.std)


@pytest.mark.unchecked
def test_an_image_and_a_trace_in_the_other_order_are_told_apart():
    image = Image.new("RGB", (48, 48))
    recorded = Trace(torch.nn.Identity())
    for given in ((recorded, image), (np.asarray(image), recorded), (image, None)):
        with pytest.raises(TypeError, match=r"^draw takes a PIL image, then a trace: .*got \w+"):
            batvit.draw(*given)
    with pytest.raises(TypeError, match="got Trace, then Image"):
        batvit.draw(recorded, image)
