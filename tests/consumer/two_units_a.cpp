#include <ordo/ordo.hpp>

// The other unit sees the same inline variables and functions as this one: one definition each in the program.
const void* version_address();

int main() { return version_address() == &ordo::version ? 0 : 1; }
