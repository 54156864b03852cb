// See driver.h.
#include "driver.h"
#include <system_error>

namespace q::cpu {
namespace {

constexpr size_t kCopiedWrite = 64 << 10;  // larger writes are held until done, as driver.ts says

Napi::Error to_error(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.what());
  error.Set("code", failure.code);
  if (!failure.command.empty()) error.Set("command", failure.command);
  if (failure.wanted_bytes >= 0) error.Set("wantedBytes", failure.wanted_bytes);
  if (failure.free_bytes >= 0) error.Set("freeBytes", failure.free_bytes);
  return error;
}

int64_t whole(const Napi::Value& value, const char* what, int64_t least = 0) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(number >= double(least)) || number > 9007199254740992.0 || number != std::floor(number)) {
    throw Failure("command", std::string(what) + " must be a whole number of at least " + std::to_string(least));
  }
  return int64_t(number);
}

}  // namespace

Napi::Object describe(Napi::Env env, const CpuFeatures& features, int threads) {
  Napi::Object info = Napi::Object::New(env), flags = Napi::Object::New(env);
  flags.Set("isa", isa_name(features.isa));
  flags.Set("avx512Vnni", features.avx512_vnni);
  flags.Set("avx512Bf16", features.avx512_bf16);
  flags.Set("avx512Fp16", features.avx512_fp16);
  flags.Set("avx512Vbmi", features.avx512_vbmi);
  flags.Set("amxInt8", features.amx_int8);
  flags.Set("amxBf16", features.amx_bf16);
  flags.Set("physicalCores", physical_cores());
  flags.Set("threads", threads);
  Napi::Array activations = Napi::Array::New(env, 1);
  activations.Set(0u, "f32");
  info.Set("type", "cpu");
  info.Set("index", 0);
  info.Set("name", cpu_name());
  info.Set("totalBytes", double(system_memory().total));
  info.Set("mapsFiles", true);
  info.Set("activationDtypes", activations);
  info.Set("features", flags);
  return info;
}

template <auto method>
Napi::Value DriverObject::guarded(Info info) {
  try {
    if constexpr (std::is_void_v<decltype((this->*method)(info))>) {
      (this->*method)(info);
      return info.Env().Undefined();
    } else {
      return (this->*method)(info);
    }
  } catch (const Failure& failure) {
    throw to_error(info.Env(), failure);
  } catch (const std::bad_alloc&) {
    throw to_error(info.Env(), Failure("out_of_memory", "the process has no memory for the call"));
  }
}

template <auto method>
Napi::Value DriverObject::guarded_promise(Info info) {
  try {
    return (this->*method)(info);
  } catch (const Failure& failure) {
    auto deferred = Napi::Promise::Deferred::New(info.Env());
    deferred.Reject(to_error(info.Env(), failure).Value());
    return deferred.Promise();
  }
}

Napi::Function DriverObject::define(Napi::Env env) {
  using D = DriverObject;
  return DefineClass(env, "CpuDriver",
                     {
                         InstanceMethod<&D::guarded<&D::alloc>>("alloc"),
                         InstanceMethod<&D::guarded<&D::release>>("release"),
                         InstanceMethod<&D::guarded<&D::submit>>("submit"),
                         InstanceMethod<&D::guarded<&D::write>>("write"),
                         InstanceMethod<&D::guarded_promise<&D::read>>("read"),
                         InstanceMethod<&D::guarded<&D::open_file>>("openFile"),
                         InstanceMethod<&D::guarded<&D::close_file>>("closeFile"),
                         InstanceMethod<&D::guarded<&D::read_file>>("readFile"),
                         InstanceMethod<&D::guarded<&D::map_file>>("mapFile"),
                         InstanceMethod<&D::guarded_promise<&D::flush>>("flush"),
                         InstanceMethod<&D::guarded<&D::group>>("group"),
                         InstanceMethod<&D::guarded<&D::cancel>>("cancel"),
                         InstanceMethod<&D::guarded<&D::begin_capture>>("beginCapture"),
                         InstanceMethod<&D::guarded<&D::end_capture>>("endCapture"),
                         InstanceMethod<&D::guarded<&D::replay>>("replay"),
                         InstanceMethod<&D::guarded<&D::release_program>>("releaseProgram"),
                         InstanceMethod<&D::guarded<&D::memory>>("memory"),
                         InstanceMethod<&D::guarded_promise<&D::close>>("close"),
                     });
}

DriverObject::DriverObject(const Napi::CallbackInfo& info) : ObjectWrap(info), env_(info.Env()) {
  const Napi::Env env = info.Env();
  int threads = 0;
  try {
    threads = int(whole(info[0], "threads", 1));
  } catch (const Failure& failure) {
    throw to_error(env, failure);
  }
  CpuFeatures features = detect_features();
  if (info[1].IsString()) {
    const std::string wanted = info[1].As<Napi::String>();
    const Isa isa = wanted == "avx512" ? Isa::avx512 : wanted == "avx2" ? Isa::avx2 : Isa::scalar;
    if (isa < features.isa) {
      features = CpuFeatures{};
      features.isa = isa;
    }
  }
  try {
    queue_ = std::make_unique<Queue>(
        threads, features, [this] { notify_.NonBlockingCall([this](Napi::Env env, Napi::Function) { settle(env); }); });
  } catch (const std::system_error& error) {
    throw to_error(env, Failure("out_of_memory", std::string("no thread can be started: ") + error.what()));
  }
  info.This().As<Napi::Object>().Set("info", describe(env, features, queue_->threads()));
  notify_ =
      Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "q-cpu", 0, 1);
  notify_.Unref(env);
  napi_add_env_cleanup_hook(env_, at_exit, this);
}

DriverObject::~DriverObject() { shut_down(); }

void DriverObject::at_exit(void* self) { static_cast<DriverObject*>(self)->shut_down(); }

void DriverObject::shut_down() {
  if (!queue_) return;
  napi_remove_env_cleanup_hook(env_, at_exit, this);
  closed_ = true;
  queue_->stop();
  notify_.Abort();
  queue_.reset();
  recording_.reset();
  programs_.clear();
  buffers_.clear();
  files_.clear();
}

Queue& DriverObject::queue(bool while_recording) {
  if (closed_) throw Failure("closed", "the device was closed");
  if (recording_ && !while_recording)
    throw Failure("command", "only submit may be called between beginCapture and endCapture");
  return *queue_;
}

char* DriverObject::bytes_of(int64_t id, int64_t offset, int64_t bytes, bool writes) {
  const auto found = buffers_.find(id);
  if (found == buffers_.end())
    throw Failure("command", "buffer " + std::to_string(id) + " does not exist or was released");
  const Buffer& buffer = *found->second;
  if (offset > buffer.bytes || bytes > buffer.bytes - offset) {
    throw Failure("command", "bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) +
                                 " are outside buffer " + std::to_string(id) + " of " + std::to_string(buffer.bytes));
  }
  if (writes && buffer.read_only)
    throw Failure("command", "buffer " + std::to_string(id) + " aliases a file and is read-only");
  return buffer.data + offset;
}

std::shared_ptr<File> DriverObject::file_of(int64_t id) {
  const auto found = files_.find(id);
  if (found == files_.end()) throw Failure("file", "file " + std::to_string(id) + " is not open");
  return found->second;
}

uint64_t DriverObject::add_pending(Napi::Env env, Pending pending) {
  if (pending_.empty()) {
    Ref();
    notify_.Ref(env);
  }
  pending_.emplace(next_pending_, std::move(pending));
  return next_pending_++;
}

void DriverObject::settle(Napi::Env env) {
  std::vector<Done> settled = queue_ ? queue_->collect() : std::vector<Done>{};
  if (settled.empty()) return;  // an earlier call took what this one was for
  for (Done& done : settled) {
    auto node = pending_.extract(done.id);
    if (node.mapped().closes) shut_down();
    settle(env, node.mapped(), done);
  }
  if (!pending_.empty()) return;
  if (queue_) notify_.Unref(env);
  Unref();
}

void DriverObject::settle(Napi::Env env, Pending& pending, const Done& done) {
  if (!pending.promise) return;
  try {
    if (done.failure)
      pending.promise->Reject(to_error(env, *done.failure).Value());
    else
      pending.promise->Resolve(pending.held.IsEmpty() ? env.Undefined() : Napi::Value(pending.held.Value()));
  } catch (const Napi::Error&) {
    // Only in a thread or process that is being ended: nobody waits any more.
  }
}

Napi::Value DriverObject::alloc(Info info) {
  queue(true);
  const int64_t bytes = whole(info[0], "bytes", 1);
  buffers_.emplace(next_id_, Buffer::allocate(bytes, allocated_));
  return Napi::Number::New(info.Env(), double(next_id_++));
}

void DriverObject::release(Info info) {
  Queue& to = queue(true);
  auto node = buffers_.extract(whole(info[0], "buffer"));
  if (node.empty()) throw Failure("command", "release of a buffer that does not exist or was released");
  to.push(std::make_unique<ReleaseTask>(std::move(node.mapped())));
}

void DriverObject::submit(Info info) {
  Queue& to = queue(true);
  if (!info[1].IsTypedArray() || info[1].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    throw Failure("command", "submit takes a code and a Float64Array");
  }
  const auto words = info[1].As<Napi::Float64Array>();
  auto command = read_command(whole(info[0], "code"), words.Data(), words.ElementLength(), buffers_,
                              recording_ ? &recording_->buffers : nullptr);
  if (recording_) return recording_->commands.push_back(std::move(command));
  auto task = std::make_unique<CommandTask>(std::move(command));
  task->group = group_;
  to.push(std::move(task));
}

void DriverObject::group(Info info) {
  queue(true);
  group_ = uint64_t(whole(info[0], "group"));
}

void DriverObject::cancel(Info info) { queue(true).cancel(uint64_t(whole(info[0], "group", 1))); }

void DriverObject::write(Info info) {
  Queue& to = queue();
  if (!info[2].IsTypedArray()) throw Failure("command", "write takes a Uint8Array");
  const auto data = info[2].As<Napi::TypedArray>();
  const size_t bytes = data.ByteLength();
  char* target = bytes_of(whole(info[0], "buffer"), whole(info[1], "offset"), int64_t(bytes), true);
  if (bytes == 0) return;
  const char* source = static_cast<const char*>(data.ArrayBuffer().Data()) + data.ByteOffset();
  uint64_t id = 0;
  if (bytes > kCopiedWrite)
    id = add_pending(info.Env(), {std::nullopt, Napi::Persistent(data.As<Napi::Object>()), false});
  to.push(std::make_unique<WriteTask>(target, source, int64_t(bytes), id));
}

Napi::Value DriverObject::read(Info info) {
  Queue& to = queue();
  const int64_t bytes = whole(info[2], "bytes");
  const char* source = bytes_of(whole(info[0], "buffer"), whole(info[1], "offset"), bytes, false);
  const auto target = Napi::ArrayBuffer::New(info.Env(), size_t(bytes));
  const auto promise = Napi::Promise::Deferred::New(info.Env());
  const uint64_t id = add_pending(info.Env(), {promise, Napi::Persistent(target.As<Napi::Object>()), false});
  to.push(
      std::make_unique<ReadTask>(static_cast<char*>(const_cast<Napi::ArrayBuffer&>(target).Data()), source, bytes, id));
  return promise.Promise();
}

Napi::Value DriverObject::open_file(Info info) {
  queue(true);
  if (!info[0].IsString()) throw Failure("file", "openFile takes a path");
  files_.emplace(next_id_, std::make_shared<File>(info[0].As<Napi::String>().Utf8Value()));
  return Napi::Number::New(info.Env(), double(next_id_++));
}

void DriverObject::close_file(Info info) {
  queue(true);
  const int64_t id = whole(info[0], "file");
  file_of(id);
  files_.erase(id);
}

void DriverObject::read_file(Info info) {
  Queue& to = queue();
  const int64_t bytes = whole(info[4], "bytes");
  char* target = bytes_of(whole(info[2], "buffer"), whole(info[3], "offset"), bytes, true);
  to.push(std::make_unique<ReadFileTask>(file_of(whole(info[0], "file")), whole(info[1], "fileOffset"), target, bytes));
}

Napi::Value DriverObject::map_file(Info info) {
  Queue& to = queue();
  auto buffer = Buffer::map(file_of(whole(info[0], "file")), whole(info[1], "fileOffset"), whole(info[2], "bytes", 1),
                            allocated_);
  to.push(std::make_unique<PrefetchTask>(buffer));
  buffers_.emplace(next_id_, std::move(buffer));
  return Napi::Number::New(info.Env(), double(next_id_++));
}

Napi::Value DriverObject::flush(Info info) {
  Queue& to = queue();
  const auto promise = Napi::Promise::Deferred::New(info.Env());
  to.push(std::make_unique<FlushTask>(add_pending(info.Env(), {promise, {}, false})));
  return promise.Promise();
}

void DriverObject::begin_capture(Info) {
  queue();
  recording_ = std::make_shared<Program>();
}

Napi::Value DriverObject::end_capture(Info info) {
  queue(true);
  if (!recording_) throw Failure("command", "endCapture without beginCapture");
  programs_.emplace(next_id_, std::move(recording_));
  recording_ = nullptr;
  return Napi::Number::New(info.Env(), double(next_id_++));
}

void DriverObject::replay(Info info) {
  Queue& to = queue();
  const auto found = programs_.find(whole(info[0], "program"));
  if (found == programs_.end()) throw Failure("command", "replay of a program that does not exist or was released");
  auto task = std::make_unique<ReplayTask>(found->second);
  task->group = group_;
  to.push(std::move(task));
}

void DriverObject::release_program(Info info) {
  Queue& to = queue(true);
  auto node = programs_.extract(whole(info[0], "program"));
  if (node.empty()) throw Failure("command", "release of a program that does not exist or was released");
  to.push(std::make_unique<ReleaseTask>(std::move(node.mapped())));
}

Napi::Value DriverObject::memory(Info info) {
  queue(true);
  Napi::Object memory = Napi::Object::New(info.Env());
  memory.Set("allocatedBytes", double(allocated_.load()));
  memory.Set("freeBytes", double(system_memory().available));
  return memory;
}

Napi::Value DriverObject::close(Info info) {
  Queue& to = queue(true);
  closed_ = true;
  const auto promise = Napi::Promise::Deferred::New(info.Env());
  to.push(std::make_unique<FlushTask>(add_pending(info.Env(), {promise, {}, true})));
  return promise.Promise();
}

}  // namespace q::cpu
