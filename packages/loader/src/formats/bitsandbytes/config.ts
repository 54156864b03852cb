// What the formats of bitsandbytes share: one class of config, with one list of modules to skip.
import type { BitsAndBytesConfig, BitsAndBytesOptions, QuantizationConfig } from '@q/config';
import type { FormatConfig } from '../format.js';

/** Whether a config is one of bitsandbytes. */
export const isBitsAndBytes = (config: QuantizationConfig): config is BitsAndBytesConfig =>
  config.quantMethod === 'bitsandbytes';

/** Settings of how to compute, which a quantized checkpoint can have anew. */
const APPLICABLE = ['bnb4bitComputeDtype', 'llmInt8Threshold', 'llmInt8EnableFp32CpuOffload'] as const;

/** What is settled by how the weights were quantized. */
const SETTLED = [
  'bnb4bitQuantType',
  'bnb4bitUseDoubleQuant',
  'bnb4bitQuantStorage',
  'llmInt8SkipModules',
  'llmInt8HasFp16Weight',
] as const;

/** The part of a format's config that is the same for 4 and for 8 bits. */
export const bitsAndBytes: Pick<
  FormatConfig<BitsAndBytesConfig>,
  'method' | 'skipped' | 'cpuOffload' | 'withSkipped' | 'compare'
> = {
  method: 'bitsandbytes',
  skipped: ({ llmInt8SkipModules }) => llmInt8SkipModules,
  cpuOffload: ({ llmInt8EnableFp32CpuOffload }) => llmInt8EnableFp32CpuOffload,
  withSkipped: (config, modules) => config.with({ llmInt8SkipModules: modules }),
  compare: (stored, wanted) => {
    if (!isBitsAndBytes(wanted)) return { config: stored, applied: [], settled: [] };
    const said = (option: keyof BitsAndBytesOptions) =>
      wanted.sourceOf(option) !== 'default' && JSON.stringify(wanted[option]) !== JSON.stringify(stored[option]);
    const applied = APPLICABLE.filter(said);
    return {
      settled: SETTLED.filter(said).map((name) => `${name} ${JSON.stringify(wanted[name])}`),
      applied,
      config:
        applied.length > 0 ? stored.with(Object.fromEntries(applied.map((name) => [name, wanted[name]]))) : stored,
    };
  },
};
