#include "runtime/dispatch.h"

namespace q::cuda {

Tensor Reader::tensor(bool required) {
  const double id = number(), offset = number(), dtype = number(), bytes = number();
  if (id == 0) {
    if (required) throw CommandError("a required tensor is missing");
    return Tensor{nullptr, DType::f32, 0};
  }
  const BufferView view = buffers_.view(static_cast<int64_t>(id));
  if (!view.data) throw CommandError("buffer " + std::to_string(static_cast<int64_t>(id)) + " is not allocated");
  if (!(offset >= 0) || !(bytes >= 0) || offset + bytes > static_cast<double>(view.bytes)) {
    throw CommandError("a tensor of " + std::to_string(static_cast<int64_t>(bytes)) + " bytes at " +
                       std::to_string(static_cast<int64_t>(offset)) + " does not fit its buffer of " +
                       std::to_string(view.bytes));
  }
  tensors_.push_back(Tensor{static_cast<char*>(view.data) + static_cast<int64_t>(offset),
                            static_cast<DType>(static_cast<int>(dtype)), static_cast<int64_t>(bytes)});
  return tensors_.back();
}

double Reader::number() {
  if (at_ >= count_) throw CommandError("too few argument words");
  return words_[at_++];
}

int64_t Reader::count(int64_t most) {
  const int64_t n = integer();
  if (n < 0 || n > most)
    throw CommandError("a list of " + std::to_string(n) + " entries, at most " + std::to_string(most) + " are taken");
  return n;
}

}  // namespace q::cuda
