// Source followed: transformers 5.17 BitsAndBytesConfig (fields, defaults, checks, JSON form).
import { z } from 'zod';
import { ConfigError } from './errors.js';
import type { OptionSource, Spec } from './fields.js';
import { changed, configClass, decode, sourceOf } from './fields.js';
import type { ReadOptions } from './json.js';
import { dtype, flag, nullable, orElse, real, texts } from './schema.js';

export type ComputeDType = 'float32' | 'float16' | 'bfloat16';
/** Containers in which bitsandbytes can keep packed 4-bit codes. float64 is a container only; no tensor of Q has it. */
export type QuantStorage = 'float16' | 'float32' | 'int8' | 'uint8' | 'float64' | 'bfloat16';

/** The options of `BitsAndBytesConfig`; in brackets their defaults. */
export interface BitsAndBytesOptions {
  /** LLM.int8 for linear layers [false]. */
  loadIn8bit: boolean;
  /** 4-bit linear layers [false]. Not together with `loadIn8bit`. */
  loadIn4bit: boolean;
  /** Activation columns with any value at or above this stay in higher precision [6]. 0: none do. */
  llmInt8Threshold: number;
  /** Modules that stay unquantized, in 4-bit models too; null lets the model decide (its head, tied weights) [null]. */
  llmInt8SkipModules: readonly string[] | null;
  /** Modules mapped to the CPU or to disk may stay in float32 [false]. */
  llmInt8EnableFp32CpuOffload: boolean;
  /** Keep 16-bit main weights beside the 8-bit ones [false]. */
  llmInt8HasFp16Weight: boolean;
  /** Element type of matrix products with 4-bit weights [float32]. */
  bnb4bitComputeDtype: ComputeDType;
  /** The 4-bit code [fp4, as in Python]. */
  bnb4bitQuantType: 'fp4' | 'nf4';
  /** Quantize the absmax values too [false]. */
  bnb4bitUseDoubleQuant: boolean;
  /** Element type of the packed tensors in a checkpoint [uint8]. */
  bnb4bitQuantStorage: QuantStorage;
}

const STORAGES = ['float16', 'float32', 'int8', 'uint8', 'float64', 'bfloat16'] as const;
const storage = z.preprocess(
  (value) => (typeof value === 'string' ? value.replace(/^torch\./, '') : value),
  z.enum(STORAGES, { error: `must be one of ${STORAGES.join(', ')}` }),
);

const schema: z.ZodType<BitsAndBytesOptions> = z.object({
  loadIn8bit: flag(false),
  loadIn4bit: flag(false),
  llmInt8Threshold: real.min(0, { error: 'must be 0 or more' }).default(6),
  llmInt8SkipModules: nullable(texts),
  llmInt8EnableFp32CpuOffload: flag(false),
  llmInt8HasFp16Weight: flag(false),
  bnb4bitComputeDtype: z.preprocess(
    (value) => value ?? 'float32',
    dtype<ComputeDType>(['float32', 'float16', 'bfloat16']),
  ),
  bnb4bitQuantType: z.enum(['fp4', 'nf4'], { error: 'must be fp4 or nf4' }).default('fp4'),
  bnb4bitUseDoubleQuant: flag(false),
  bnb4bitQuantStorage: orElse(storage, 'uint8'),
});

const SPEC: Spec<BitsAndBytesOptions> = {
  op: 'BitsAndBytesConfig',
  schema,
  keys: {
    loadIn8bit: 'load_in_8bit',
    loadIn4bit: 'load_in_4bit',
    llmInt8Threshold: 'llm_int8_threshold',
    llmInt8SkipModules: 'llm_int8_skip_modules',
    llmInt8EnableFp32CpuOffload: 'llm_int8_enable_fp32_cpu_offload',
    llmInt8HasFp16Weight: 'llm_int8_has_fp16_weight',
    bnb4bitComputeDtype: 'bnb_4bit_compute_dtype',
    bnb4bitQuantType: 'bnb_4bit_quant_type',
    bnb4bitUseDoubleQuant: 'bnb_4bit_use_double_quant',
    bnb4bitQuantStorage: 'bnb_4bit_quant_storage',
  },
  twins: { _load_in_8bit: 'loadIn8bit', _load_in_4bit: 'loadIn4bit' },
  constants: { quant_method: 'bitsandbytes' },
  check: (values) => {
    if (values.loadIn4bit && values.loadIn8bit) {
      throw new ConfigError(
        'BitsAndBytesConfig',
        'loadIn4bit (load_in_4bit) is true and loadIn8bit (load_in_8bit) is true',
        {
          why: 'only one of them can be used at the same time',
          fix: 'set one of them to false',
        },
      );
    }
    return values;
  },
};

/**
 * How bitsandbytes quantizes a model: `new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' })`. Frozen.
 * @throws ConfigError for an unknown option, a value of the wrong kind, or both load flags
 */
export class BitsAndBytesConfig extends configClass(SPEC) {
  /** Always `bitsandbytes`; written as `quant_method`. */
  get quantMethod(): 'bitsandbytes' {
    return 'bitsandbytes';
  }

  /** Reads a `quantization_config` object or its text. @throws ConfigError */
  static fromJSON(json: unknown, options?: ReadOptions): BitsAndBytesConfig {
    const decoded = decode(SPEC, json, options);
    const method = decoded.source?.raw.quant_method ?? undefined;
    if (method !== undefined && method !== 'bitsandbytes') {
      throw new ConfigError('BitsAndBytesConfig', `quant_method is ${JSON.stringify(method)}`, {
        why: 'must be bitsandbytes',
      });
    }
    return new BitsAndBytesConfig(decoded);
  }

  /** A copy with some options changed; unknown keys of the file it came from stay. @throws ConfigError */
  with(changes: Partial<BitsAndBytesOptions>): BitsAndBytesConfig {
    return new BitsAndBytesConfig(changed(SPEC, this, changes));
  }

  /** A copy with other defaults: options that nobody has set, and that count as not set. @throws ConfigError */
  withDefaults(defaults: Partial<BitsAndBytesOptions>): BitsAndBytesConfig {
    return new BitsAndBytesConfig(changed(SPEC, this, defaults, 'default'));
  }

  /** Who set an option. A value that is the default because nobody set it contradicts nothing. */
  sourceOf(option: keyof BitsAndBytesOptions): OptionSource {
    return sourceOf(this, option);
  }

  /** Whether it quantizes anything. */
  get isQuantizable(): boolean {
    return this.loadIn8bit || this.loadIn4bit;
  }

  /** `llm_int8`, `fp4`, `nf4`, or null when nothing is quantized. */
  quantizationMethod(): 'llm_int8' | 'fp4' | 'nf4' | null {
    if (this.loadIn8bit) return 'llm_int8';
    return this.loadIn4bit ? this.bnb4bitQuantType : null;
  }
}
