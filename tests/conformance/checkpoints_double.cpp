#include "checkpoints.hpp"

namespace conformance {
CheckpointFunction find_checkpoint(std::string_view model_type, double) { return find_checkpoint_of<double>(model_type); }
}  // namespace conformance
