// Weights that other programs quantized, told by what they leave in config.json. Naming them is all that is done:
// reading such a file as if it were dense would give a message about tensors that says nothing.
import { UnsupportedError } from './errors.js';
import type { JsonObject, JsonValue } from './json.js';
import { isPlainObject } from './json.js';

/** `quant_method` of quantizers that Python's library knows, and what they are called. */
const METHODS: ReadonlyMap<string, string> = new Map([
  ['awq', 'AWQ'],
  ['aqlm', 'AQLM'],
  ['auto-round', 'AutoRound'],
  ['autoround', 'AutoRound'],
  ['intel/auto-round', 'AutoRound'],
  ['bitnet', 'BitNet'],
  ['compressed-tensors', 'compressed-tensors (llm-compressor)'],
  ['deepspeedfp', 'DeepSpeed FP'],
  ['eetq', 'EETQ'],
  ['exl2', 'ExLlamaV2 (exl2)'],
  ['exl3', 'ExLlamaV3 (exl3)'],
  ['experts_int8', 'experts_int8'],
  ['fbgemm_fp8', 'FBGEMM (fp8)'],
  ['fp8', 'fine-grained fp8'],
  ['fp_quant', 'FP-Quant'],
  ['gguf', 'GGUF (llama.cpp)'],
  ['higgs', 'HIGGS'],
  ['hqq', 'HQQ'],
  ['ipex', 'Intel Extension for PyTorch'],
  ['marlin', 'Marlin'],
  ['mlx', 'MLX'],
  ['modelopt', 'NVIDIA ModelOpt'],
  ['mxfp4', 'MXFP4'],
  ['quanto', 'Quanto'],
  ['quark', 'AMD Quark'],
  ['quip', 'QuIP#'],
  ['quip#', 'QuIP#'],
  ['sinq', 'SINQ'],
  ['spqr', 'SpQR'],
  ['squeezellm', 'SqueezeLLM'],
  ['torchao', 'torchao'],
  ['vptq', 'VPTQ'],
]);

/** The error for weights in a format that is known by name only. */
export const notLoadable = (op: string, name: string): UnsupportedError =>
  new UnsupportedError(op, `weights quantized by ${name} cannot be loaded yet`, {
    why: 'Q reads dense and bitsandbytes (nf4, fp4, LLM.int8) weights',
    fix: 'use the unquantized checkpoint (loadIn4bit and loadIn8bit quantize it while loading), or one that bitsandbytes quantized',
  });

/** The name behind a `quant_method`; undefined for one that nobody knows. */
export function foreignMethod(method: unknown): string | undefined {
  if (typeof method !== 'string') return undefined;
  const word = method.toLowerCase().replace(/_/g, '-');
  return (
    METHODS.get(method.toLowerCase()) ??
    METHODS.get(word) ??
    (word.startsWith('modelopt') ? 'NVIDIA ModelOpt' : undefined)
  );
}

// Keys that give away who wrote settings that name no method; the first row whose keys are all there decides. null is
// GPTQ, which is read elsewhere.
const SHAPES: readonly (readonly [keys: readonly string[], name: string | null])[] = [
  [['quant_algo'], 'NVIDIA ModelOpt'],
  [['kv_cache_quant_algo'], 'NVIDIA ModelOpt'],
  [['w_bit'], 'AWQ'],
  [['q_group_size'], 'AWQ'],
  [['zero_point', 'version'], 'AWQ'],
  [['config_groups'], METHODS.get('compressed-tensors')!],
  [['quantization_status'], METHODS.get('compressed-tensors')!],
  [['nbits_per_codebook'], 'AQLM'],
  [['weight_block_size'], 'fine-grained fp8'],
  [['codebook', 'codesz'], 'QuIP#'],
  [['nbits'], 'HQQ'],
  [['weight_quant_params'], 'HQQ'],
  [['head_bits'], 'ExLlamaV2 (exl2)'],
  [['calibration', 'bits'], 'ExLlamaV2 (exl2)'],
  [['bits', 'desc_act'], null],
  [['bits', 'damp_percent'], null],
  [['group_size', 'bits'], 'MLX'],
];

/** Who wrote a quantization object; undefined when it cannot be told, or when Q reads it. */
export function foreignShape(settings: JsonObject): string | undefined {
  if ((settings.quant_method ?? null) !== null) return foreignMethod(settings.quant_method);
  const row = SHAPES.find(([keys]) => keys.every((key) => (settings[key] ?? null) !== null));
  return row?.[1] ?? undefined;
}

/** Keys of config.json beside quantization_config in which programs keep their settings. */
const KEYS: Readonly<Record<string, string>> = {
  compression_config: 'compressed-tensors (llm-compressor)',
  aqlm: 'AQLM',
  quip_params: 'QuIP#',
  hqq_config: 'HQQ',
  vptq_config: 'VPTQ',
  awq_config: 'AWQ',
  gguf: 'GGUF (llama.cpp)',
  gguf_file: 'GGUF (llama.cpp)',
};

/** All keys of config.json in which a program says how it quantized the weights. */
export const WEIGHT_FORMAT_KEYS: readonly string[] = ['quantization_config', 'quantization', ...Object.keys(KEYS)];

const saysSomething = (value: JsonValue | undefined): boolean =>
  value !== undefined &&
  value !== null &&
  value !== false &&
  !(isPlainObject(value) && Object.keys(value).length === 0);

/**
 * Looks for the settings of other quantizers in a config.json.
 * @throws UnsupportedError that names the program
 */
export function refuseForeignWeights(op: string, raw: JsonObject): void {
  for (const [key, name] of Object.entries(KEYS))
    if (Object.hasOwn(raw, key) && saysSomething(raw[key])) throw notLoadable(op, name);
  const { quantization, quantization_config: config } = raw;
  if (isPlainObject(quantization) && saysSomething(quantization as JsonObject)) {
    const settings = quantization as JsonObject;
    if (Object.hasOwn(settings, 'quant_algo') && settings.quant_algo === null) return;
    throw notLoadable(op, foreignShape(settings) ?? 'another program');
  }
  if (typeof quantization === 'string' && quantization !== '')
    throw notLoadable(op, foreignMethod(quantization) ?? quantization);
  if (!isPlainObject(config)) return;
  const name = foreignShape(config as JsonObject);
  if (name !== undefined) throw notLoadable(op, name);
}
