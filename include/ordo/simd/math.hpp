#pragma once
/// \file
/// Elementary functions and activations of vectors, float and double, on every architecture that xsimd knows.
///
/// Each is an object: `simd::silu(v)` for a vector, `simd::silu(x)` for a number (the same bits as a lane),
/// `simd::transform(x, y, n, simd::silu)` for an array. Errors are at most 2 units in the last place; NaN stays NaN;
/// no finite result overflows on the way. exp, and all tails that contain it, are 0 where exp would be denormal
/// (x < -87.33 in float, -708.39 in double). Derivatives are named after their function, `silu_grad(x)`; where they
/// cross zero their error is absolute, a few units in the last place of 1.

#include "ordo/simd/activations.hpp"
#include "ordo/simd/erf.hpp"
#include "ordo/simd/exp.hpp"
#include "ordo/simd/log.hpp"
#include "ordo/simd/sigmoid.hpp"
#include "ordo/simd/simd.hpp"
