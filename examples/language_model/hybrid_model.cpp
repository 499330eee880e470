#include "run.hpp"

template int ordo_demo::run<ordo_demo::HybridModel>(const Options&, const Task&);
