#pragma once
// Catch2 v2 or v3, whichever is installed. Tests use what both spell alike: TEST_CASE, SECTION, REQUIRE*, CHECK*,
// TEMPLATE_TEST_CASE, GENERATE, CAPTURE, INFO and Catch::Matchers::Within{Abs,Rel,ULP}; neither Approx nor Contains.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
