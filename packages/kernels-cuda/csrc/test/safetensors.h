// Just enough of safetensors to read golden files.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace q::cuda::test {

struct StoredTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;
  template <class T>
  std::vector<T> as() const {
    std::vector<T> v(bytes.size() / sizeof(T));
    std::memcpy(v.data(), bytes.data(), bytes.size());
    return v;
  }
  int64_t count() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
};

inline std::map<std::string, StoredTensor> read_safetensors(const std::string& path) {
  std::FILE* f = std::fopen(path.c_str(), "rb");
  if (!f) throw std::runtime_error("cannot open " + path);
  std::fseek(f, 0, SEEK_END);
  std::vector<uint8_t> all(std::ftell(f));
  std::fseek(f, 0, SEEK_SET);
  const size_t got = std::fread(all.data(), 1, all.size(), f);
  std::fclose(f);
  if (got != all.size() || got < 8) throw std::runtime_error("cannot read " + path);
  uint64_t header;
  std::memcpy(&header, all.data(), 8);
  const std::string json(reinterpret_cast<const char*>(all.data()) + 8, header);
  std::map<std::string, StoredTensor> out;
  for (size_t at = 0; (at = json.find("\"dtype\":\"", at)) != std::string::npos;) {
    const size_t open = json.rfind("\":{", at), quote = json.rfind('"', open - 1);
    StoredTensor t;
    at += 9;
    t.dtype = json.substr(at, json.find('"', at) - at);
    const char* p = json.c_str() + json.find("\"shape\":[", at) + 9;
    while (*p != ']') {
      t.shape.push_back(std::strtoll(p, const_cast<char**>(&p), 10));
      if (*p == ',') ++p;
    }
    p = json.c_str() + json.find("\"data_offsets\":[", at) + 16;
    const uint64_t begin = std::strtoull(p, const_cast<char**>(&p), 10), end = std::strtoull(p + 1, nullptr, 10);
    t.bytes.assign(all.begin() + 8 + header + begin, all.begin() + 8 + header + end);
    out[json.substr(quote + 1, open - quote - 1)] = std::move(t);
  }
  return out;
}

}  // namespace q::cuda::test
