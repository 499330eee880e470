#include <ordo/ordo.hpp>

const void* version_address();
const void* version_address() { return &ordo::version; }
