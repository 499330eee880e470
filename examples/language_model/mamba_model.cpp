#include "run.hpp"

template int ordo_demo::run<ordo_demo::MambaModel>(const Options&, const Task&);
