"""Deprecations that the library's lines cause are errors; those inside other packages are not."""

import warnings

import pytest

KINDS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


@pytest.mark.parametrize("kind", KINDS)
def test_a_deprecation_that_pointseg_causes_is_an_error(kind):
    with pytest.raises(kind):
        warnings.warn_explicit("planted", kind, "planted.py", 1, module="pointseg.data.planted")


@pytest.mark.parametrize("kind", KINDS)
def test_a_deprecation_inside_another_package_is_not(kind):
    warnings.warn_explicit("planted", kind, "planted.py", 1, module="elsewhere.planted")
