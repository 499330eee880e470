#include <cstdio>
#include <ordo/version.hpp>

int main() {
  std::printf("ordo %d.%d.%d\n", ordo::version.major_number, ordo::version.minor_number, ordo::version.patch_number);
}
