#include "checkpoints.hpp"

namespace conformance {
CheckpointFunction find_checkpoint(std::string_view model_type, float) { return find_checkpoint_of<float>(model_type); }
}  // namespace conformance
