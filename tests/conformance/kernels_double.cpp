#include "kernels.hpp"

namespace ordo::kernels {

template void gemm<double>(const GemmArgs<double>&);
template void gemm_small<double>(const GemmArgs<double>&);
template void attention_forward<double>(const AttentionInputs<double>&, const AttentionOutputs<double>&, const StandardMask<double>&, const StandardScore<double>&);
template void attention_backward<double>(const AttentionInputs<double>&, const AttentionGradients<double>&, const StandardMask<double>&, const StandardScore<double>&);
template void selective_scan_forward<double>(const SelectiveScan<double>&, Rows<double>, double*, double*);
template void selective_scan_backward<double>(const SelectiveScan<double>&, Rows<const double>, const double*, const SelectiveScanGradients<double>&, const double*);
template void short_conv_forward<double>(const ShortConvolution<double>&, Rows<double>, double*);
template void short_conv_backward<double>(const ShortConvolution<double>&, Rows<const double>, const double*, const ShortConvolutionGradients<double>&);
template void recurrent_forward<double>(const Recurrence<double, LstmCell<double>>&, double*, double*, double*, const RecurrenceTape<double>&);
template void recurrent_backward<double>(const Recurrence<double, LstmCell<double>>&, const RecurrenceTape<double>&, const double*, const double*, const double*, const double*, const RecurrenceGradients<double>&);
template void recurrent_forward<double>(const Recurrence<double, GruCell<double>>&, double*, double*, double*, const RecurrenceTape<double>&);
template void recurrent_backward<double>(const Recurrence<double, GruCell<double>>&, const RecurrenceTape<double>&, const double*, const double*, const double*, const double*, const RecurrenceGradients<double>&);
template void activate<double>(const ActivationParameters&, const double*, double*, Index);
template void activate_first<double>(const ActivationParameters&, const double*, const double*, double*, Index);
template void activate_second<double>(const ActivationParameters&, const double*, const double*, double*, Index);

}  // namespace ordo::kernels
