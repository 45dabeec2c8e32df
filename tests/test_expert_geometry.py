"""The rotations with which the experts read and turn the hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.expert import DOWN, Scene, limited, rotation_from_quat, rotation_vector, wrap_angle, yaw_of

angles = st.floats(-3.0, 3.0)


def about_z(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])


@given(angles)
def test_yaw_of_a_hand_that_points_down(angle: float) -> None:
    assert yaw_of(about_z(angle) @ DOWN) == pytest.approx(angle)


@given(angles, st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1))
def test_rotation_vector_inverts_the_quaternion(angle: float, axis: tuple[float, float, float]) -> None:
    unit = np.array(axis) / np.linalg.norm(axis)
    quat = np.append(np.sin(angle / 2) * unit, np.cos(angle / 2))
    np.testing.assert_allclose(rotation_vector(rotation_from_quat(quat)), angle * unit, atol=1e-6)


@given(st.floats(-50, 50))
def test_wrapped_angles_are_the_same_direction(angle: float) -> None:
    wrapped = wrap_angle(angle)
    assert -np.pi <= wrapped < np.pi + 1e-9
    assert np.cos(wrapped) == pytest.approx(np.cos(angle), abs=1e-9)
    assert np.sin(wrapped) == pytest.approx(np.sin(angle), abs=1e-9)


def test_limited_shortens_only_what_is_too_long() -> None:
    np.testing.assert_allclose(limited(np.array([3.0, 4.0]), 1.0), [0.6, 0.8])
    np.testing.assert_allclose(limited(np.array([0.3, 0.4]), 1.0), [0.3, 0.4])
    np.testing.assert_allclose(limited(np.zeros(2), 1.0), [0.0, 0.0])


def test_a_scene_is_read_from_named_observations() -> None:
    scene = Scene.read(
        {
            "robot0_eef_pos": np.array([0.1, 0.2, 1.0]),
            "robot0_eef_quat": np.array([1.0, 0.0, 0.0, 0.0]),
            "robot0_gripper_qpos": np.array([0.02, -0.03]),
            "object": np.array([0.0, 0.1, 0.8, 0.0, 0.0, np.sin(0.25), np.cos(0.25), 9.0, 9.0, 9.0]),
        }
    )
    np.testing.assert_allclose(scene.hand_rotation, DOWN)
    assert scene.hand_yaw == pytest.approx(0.0)
    assert scene.width == pytest.approx(0.05)
    np.testing.assert_allclose(scene.object, [0.0, 0.1, 0.8])
    assert scene.object_yaw == pytest.approx(0.5)
