import numpy as np

from yolov1_jax.visualization import class_colours
from yolov1_jax.visualization.class_colours import NUM_COLOURS, class_colour, text_colour


def test_a_class_keeps_its_colour():
    # Golden: changing them recolours every picture that exists.
    assert class_colour(0) == (0, 115, 178)
    assert class_colour(1) == (170, 238, 51)
    assert class_colour(2) == (255, 85, 34)
    assert class_colour(NUM_COLOURS + 1) == class_colour(1)


def test_colours_differ():
    assert len({class_colour(i) for i in range(NUM_COLOURS)}) == NUM_COLOURS


def test_twenty_classes_are_told_apart_in_every_view():
    # In OKLab about 0.02 is the smallest difference that is seen side by side.
    colours = np.array([class_colour(i) for i in range(20)]) / 255
    linear = class_colours._linear(colours)
    views = [linear] + [linear @ matrix.T for matrix in class_colours._COLOUR_BLIND]
    smallest = []
    for view in views:
        lab = class_colours._oklab(np.clip(view, 0, 1))
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
        smallest.append(distance[~np.eye(20, dtype=bool)].min())
    assert smallest[0] > 0.11
    assert min(smallest[1:]) > 0.06


def test_colour_blind_views_leave_grey_and_confuse_red_with_green():
    for matrix in class_colours._COLOUR_BLIND:
        np.testing.assert_allclose(matrix @ np.ones(3), 1.0, atol=1e-9)
        red, green = matrix @ [1.0, 0, 0], matrix @ [0, 1.0, 0]
        # Both land on one hue: no difference between the first two channels.
        np.testing.assert_allclose([red[0], green[0]], [red[1], green[1]], atol=1e-9)


def test_oklab_of_known_colours():
    # From the definition of OKLab: white is (1, 0, 0), sRGB red (0.628, 0.225, 0.126).
    np.testing.assert_allclose(class_colours._oklab(np.ones(3)), [1, 0, 0], atol=1e-3)
    red = class_colours._oklab(class_colours._linear(np.array([1.0, 0, 0])))
    np.testing.assert_allclose(red, [0.628, 0.225, 0.126], atol=1e-3)


def test_text_has_contrast_on_every_colour():
    def luminance(colour):
        return class_colours._linear(np.array(colour) / 255) @ (0.2126, 0.7152, 0.0722)

    assert text_colour((255, 255, 255)) == (0, 0, 0)
    assert text_colour((0, 0, 0)) == (255, 255, 255)
    for i in range(NUM_COLOURS):
        a, b = luminance(class_colour(i)), luminance(text_colour(class_colour(i)))
        assert (max(a, b) + 0.05) / (min(a, b) + 0.05) >= 4.5  # WCAG 2.1, level AA
