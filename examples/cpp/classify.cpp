// Classifies a video with an exported TimeSformer: ONNX Runtime alone, no Python.
//
//   classify MODEL.onnx WIDTH HEIGHT FRAMES.rgb [LABELS]
//   ffmpeg -v error -i clip.mp4 -f rawvideo -pix_fmt rgb24 - | classify MODEL.onnx WIDTH HEIGHT -
//
// The model is exported with --input frames: it resizes, crops and normalises the frames itself.
#define ORT_API_MANUAL_INIT  // main asks the library for its version before it uses it
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <numeric>
#include <string>
#include <vector>

using Bytes = std::vector<char>;

// The indices of the frames that the model sees: spread evenly, the first and the last included.
// It is numpy.linspace(0, total - 1, count), rounded down.
std::vector<int64_t> spread(int64_t total, int64_t count) {
  std::vector<int64_t> indices(count, 0);
  const double step = count > 1 ? double(total - 1) / double(count - 1) : 0.0;
  for (int64_t i = 1; i < count; ++i) indices[i] = int64_t(double(i) * step);
  if (count > 1) indices[count - 1] = total - 1;
  return indices;
}

// Reads the frames that the model sees. A pipe is read whole: only its end tells how long it is.
Bytes read_clip(const std::string& path, int64_t frame_bytes, int64_t count) {
  const bool is_pipe = path == "-";
  const Bytes piped(std::istreambuf_iterator<char>(is_pipe ? std::cin.rdbuf() : nullptr), {});
  const int64_t size = is_pipe ? piped.size() : std::filesystem::file_size(path);
  if (size == 0 || size % frame_bytes != 0)
    throw std::runtime_error(path + " has " + std::to_string(size) + " bytes, and a frame has " +
                             std::to_string(frame_bytes) + "; check width and height");
  std::ifstream file(path, std::ios::binary);
  Bytes clip(frame_bytes * count);
  auto target = clip.begin();
  for (const int64_t index : spread(size / frame_bytes, count)) {
    if (is_pipe)
      std::copy_n(piped.begin() + index * frame_bytes, frame_bytes, target);
    else if (!file.seekg(index * frame_bytes).read(&*target, frame_bytes))
      throw std::runtime_error(path + " cannot be read; check its permissions");
    target += frame_bytes;
  }
  return clip;
}

// Reads a JSON string whose opening quote is at `at`; leaves `at` behind its closing quote.
std::string json_string(const std::string& json, size_t& at) {
  std::string text;
  for (++at; json.at(at) != '"'; ++at) {
    if (json[at] != '\\' || json.at(++at) != 'u') {  // also \" and \\; a label has no line breaks
      text += json[at];
      continue;
    }
    uint32_t code = std::stoul(json.substr(at + 1, 4), nullptr, 16);
    at += 4;
    if (code >> 10 == 0x36) {  // the first half of a character whose second \uXXXX follows
      const uint32_t half = std::stoul(json.substr(at + 3, 4), nullptr, 16);
      code = 0x10000 + ((code & 0x3FF) << 10) + (half & 0x3FF);
      at += 6;
    }
    const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;  // UTF-8 bytes
    const uint32_t lead[] = {0, 0xC0, 0xE0, 0xF0};
    text += char(lead[more] | code >> 6 * more);
    for (int i = more - 1; i >= 0; --i) text += char(0x80 | (code >> 6 * i & 0x3F));
  }
  ++at;
  return text;
}

// Reads the labels from the model's configuration: {"id2label": {"0": "cut", ...}, ...}.
std::vector<std::string> read_labels(const std::string& config, size_t count) {
  std::vector<std::string> labels(count);
  for (size_t i = 0; i < count; ++i) labels[i] = "LABEL_" + std::to_string(i);
  size_t at = config.find('{', config.find("\"id2label\""));
  while ((at = config.find_first_of("\"}", at)) != std::string::npos && config[at] == '"') {
    const size_t index = std::stoul(json_string(config, at));
    at = config.find('"', at);
    labels.at(index) = json_string(config, at);
  }
  return labels;
}

void run(const std::string& model, int64_t width, int64_t height, const std::string& frames,
         size_t count) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "classify");
  Ort::SessionOptions options;
  // Without this, int8 weights overflow on x86 processors without VNNI; others ignore it.
  options.AddConfigEntry("session.x64quantprecision", "1");
  Ort::Session session(env, model.c_str(), options);
  Ort::AllocatorWithDefaultOptions allocator;
  const auto input = session.GetInputNameAllocated(0, allocator);
  const Ort::TypeInfo type = session.GetInputTypeInfo(0);
  const auto info = type.GetTensorTypeAndShapeInfo();
  auto shape = info.GetShape();  // batch, frames, height, width, 3
  if (info.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 || shape.size() != 5)
    throw std::runtime_error(model + " does not take uint8 frames; export it with --input frames");
  shape = {1, shape[1], height, width, 3};
  Bytes clip = read_clip(frames, height * width * 3, shape[1]);
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const Ort::Value tensor = Ort::Value::CreateTensor<uint8_t>(
      memory, reinterpret_cast<uint8_t*>(clip.data()), clip.size(), shape.data(), shape.size());
  const char *inputs[] = {input.get()}, *outputs[] = {"logits"};
  if (session.GetOutputNameAllocated(0, allocator).get() != std::string(outputs[0]))
    throw std::runtime_error(model + " has no logits; export it with --task video-classification");
  const auto answer = session.Run(Ort::RunOptions{}, inputs, &tensor, 1, outputs, 1);
  const size_t classes = answer[0].GetTensorTypeAndShapeInfo().GetElementCount();
  const float* logits = answer[0].GetTensorData<float>();
  const auto raw = session.GetModelMetadata().LookupCustomMetadataMapAllocated("config", allocator);
  const std::string config = raw ? raw.get() : "";
  const auto labels = read_labels(config, classes);
  std::vector<size_t> order(classes);
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  const auto says = [&](const char* text) { return config.find(text) != std::string::npos; };
  const bool is_number = says("\"problem_type\": \"regression\"");
  const bool is_multi_label = says("\"problem_type\": \"multi_label_classification\"");
  double sum = 0, largest = logits[order[0]];  // which is subtracted, so that nothing overflows
  for (size_t i = 0; i < classes; ++i) sum += std::exp(logits[i] - largest);
  for (size_t i = 0; i < std::min(classes, count); ++i) {
    const double logit = logits[order[i]], power = std::exp(logit - largest);
    const double score = is_multi_label ? 1 / (1 + std::exp(-logit)) : power / sum;
    std::printf("%.6f\t%.9g\t%s\n", is_number ? logit : score, logit, labels[order[i]].c_str());
  }
}

int main(int argc, char** argv) try {
  if (argc != 5 && argc != 6)
    throw std::runtime_error("usage: classify MODEL.onnx WIDTH HEIGHT FRAMES.rgb|- [LABELS]");
  const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (!api) throw std::runtime_error("ONNX Runtime is older than its headers; install a newer one");
  Ort::InitApi(api);
  const int width = std::atoi(argv[2]), height = std::atoi(argv[3]);
  const int labels = argc == 6 ? std::atoi(argv[5]) : 5;
  if (std::min({width, height, labels}) < 1 || std::max({width, height, labels}) > 16384)
    throw std::runtime_error("width, height and labels must be numbers from 1 to 16384");
  run(argv[1], width, height, argv[4], labels);
  if (std::fflush(stdout)) throw std::runtime_error("standard output cannot be written");
} catch (const std::exception& error) {
  std::cerr << "classify: " << error.what() << '\n';
  return 2;
}
