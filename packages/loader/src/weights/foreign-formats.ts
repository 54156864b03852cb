// Quantized formats that Q does not read, told by the names and shapes of a layer's tensors.
import type { ParameterSlot } from '@q/tensor';

/** What is known of a stored tensor without reading it. */
export interface StoredTensorInfo {
  /** Q's name, or the file's spelling of a type that Q does not compute with. */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly file: string;
}

type Stored = ReadonlyMap<string, StoredTensorInfo>;

interface ForeignFormat {
  readonly what: string;
  /** Endings of names, behind the module's name and a point, that are all there. */
  readonly parts: readonly string[];
  readonly also?: (module: string, tensors: Stored, inFeatures: number) => boolean;
}

const float8 = /^F8_/;

/** The first that fits counts. */
const formats: readonly ForeignFormat[] = [
  {
    what: 'AWQ (4-bit codes packed along the output)',
    parts: ['qweight', 'qzeros', 'scales'],
    also: (module, tensors, inFeatures) =>
      !tensors.has(`${module}.g_idx`) && tensors.get(`${module}.qweight`)!.shape[0] === inFeatures,
  },
  { what: 'GPTQ', parts: ['qweight', 'qzeros', 'scales'] },
  { what: 'GPTQ or AWQ', parts: ['qweight'] },
  { what: 'MLX (packed codes with scales and biases per group)', parts: ['weight', 'scales', 'biases'] },
  { what: 'EXL2 or EXL3 (exllama)', parts: ['q_weight'] },
  { what: 'EXL2 or EXL3 (exllama)', parts: ['trellis'] },
  { what: 'compressed-tensors (packed)', parts: ['weight_packed'] },
  { what: 'HQQ', parts: ['W_q'] },
  { what: 'Quanto', parts: ['weight._data', 'weight._scale'] },
  { what: 'AQLM', parts: ['codebooks', 'codes'] },
  { what: 'MXFP4', parts: ['weight_blocks', 'weight_scales'] },
  { what: 'FP8 with block scales', parts: ['weight', 'weight_scale_inv'] },
  { what: 'FP8 or INT8 with scales (compressed-tensors)', parts: ['weight', 'weight_scale'] },
  {
    what: 'FP8',
    parts: ['weight'],
    also: (module, tensors) => float8.test(tensors.get(`${module}.weight`)!.dtype),
  },
];

/** The foreign format in which a layer is stored, with a tensor that shows it; undefined when there is none. */
export function foreignFormat(
  tensors: Stored,
  layers: Iterable<{ readonly module: string; readonly slot: ParameterSlot }>,
): { readonly what: string; readonly tensor: string } | undefined {
  for (const { module, slot } of layers) {
    const found = formats.find(
      ({ parts, also }) =>
        parts.every((part) => tensors.has(`${module}.${part}`)) && (also?.(module, tensors, slot.shape[1]) ?? true),
    );
    if (found) return { what: found.what, tensor: `${module}.${found.parts.at(-1)}` };
  }
  return undefined;
}
