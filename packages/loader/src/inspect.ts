// What a checkpoint holds, from headers and JSON files; of the data only quantization states (about 100 bytes each).
import { join } from 'node:path';
import { quantizationMethodOf } from '@q/config';
import type { DType } from '@q/tensor';
import { openCheckpoint, type Checkpoint, type OpenCheckpointOptions } from './checkpoint.js';
import type { Description } from './formats/format.js';
import { describedFormats, formatOfStored, helperOwner, recogniseWeight } from './formats/registry.js';
import { parseJsonObject } from './json-file.js';
import { maxConfigBytes } from './limits.js';
import { readOptionalFile, utf8Text } from './small-file.js';

export interface DTypeTotal {
  tensors: number;
  elements: number;
  bytes: number;
}

/** A weight, bias or buffer, together with the helper tensors of its quantization. */
export interface ParameterReport {
  /** Full name, `model.layers.0.mlp.up_proj.weight`. */
  readonly name: string;
  /** `dense`, `bnb-nf4`, `bnb-fp4`, `bnb-int8` or `gptq`. */
  readonly format: string;
  /** The same in a table: a dense tensor by its dtype. */
  readonly storedAs: string;
  /** Shape of the weight as a model sees it; for gptq [out, in]. */
  readonly shape: readonly number[];
  /** Element type: of the tensor, or of a 4-bit weight before it was quantized; the file's spelling if unsupported. */
  readonly dtype: DType | string;
  /** Elements of `shape`; 0 for buffers of integers, which are no parameters. */
  readonly parameters: number;
  /** Bytes on disk, helper tensors included. */
  readonly bytes: number;
  /** Helper tensors (absmax, quant_map, SCB, qzeros ...). */
  readonly helpers: readonly string[];
}

/** The parameters of one module (the name without its last part), in file order. */
export interface ModuleReport {
  readonly name: string;
  readonly parameters: number;
  readonly bytes: number;
  readonly entries: readonly ParameterReport[];
}

export interface CheckpointReport {
  readonly folder: string;
  readonly files: readonly { readonly path: string; readonly bytes: number; readonly tensors: number }[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
  /** From config.json; undefined where it is missing or says nothing. */
  readonly modelType?: string;
  readonly architectures?: readonly string[];
  readonly torchDtype?: string;
  /**
   * `quant_method` (bitsandbytes, gptq ...) with the whole `quantization_config`; undefined for an unquantized model.
   */
  readonly quantization?: { readonly method: string; readonly config: Readonly<Record<string, unknown>> };
  /** Totals by element type on disk; unsupported types under the file's spelling. */
  readonly dtypes: Readonly<Record<string, DTypeTotal>>;
  /** Number of parameters; packed weights count with their real shape. */
  readonly parameters: number;
  /** Bytes of tensor data. */
  readonly bytes: number;
  readonly modules: readonly ModuleReport[];
}

const parent = (name: string) => name.slice(0, Math.max(0, name.lastIndexOf('.')));

/** The tensor that `name` is a helper of, if it is one. */
function ownerOf(checkpoint: Checkpoint, name: string): string | undefined {
  const owner = helperOwner(name);
  if (owner !== undefined) return checkpoint.has(owner) ? owner : undefined;
  for (const format of describedFormats) {
    const found = format.owner(checkpoint, name);
    if (found !== undefined) return found;
  }
  return undefined;
}

function totals(checkpoint: Checkpoint): Record<string, DTypeTotal> {
  const result = Object.create(null) as Record<string, DTypeTotal>; // the file's own spellings are keys here
  const add = (key: string, elements: number, bytes: number) => {
    const total = (result[key] ??= { tensors: 0, elements: 0, bytes: 0 });
    total.tensors++;
    total.elements += elements;
    total.bytes += bytes;
  };
  for (const { dtype, elements, bytes } of checkpoint.tensors.values()) add(dtype, elements, bytes);
  for (const { storedDtype, elements, bytes } of checkpoint.unsupported.values()) add(storedDtype, elements, bytes);
  return result;
}

async function describe(
  checkpoint: Checkpoint,
  name: string,
  bits: unknown,
  signal?: AbortSignal,
): Promise<Description> {
  const other = checkpoint.unsupported.get(name);
  if (other) {
    const { shape, storedDtype: dtype } = other;
    return { format: 'dense', storedAs: dtype, shape, dtype, counts: true };
  }
  for (const format of describedFormats) {
    const found = format.describe(checkpoint, name, bits);
    if (found) return found;
  }
  const stored = recogniseWeight(checkpoint, name);
  return formatOfStored(stored).describe(checkpoint, stored, { signal });
}

/** Adds to the list of a key. One walk over names must stay one walk: checkpoints have hundreds of thousands. */
function addTo<T>(lists: Map<string, T[]>, key: string, item: T): void {
  const list = lists.get(key);
  if (list) list.push(item);
  else lists.set(key, [item]);
}

async function listParameters(checkpoint: Checkpoint, bits: unknown, signal?: AbortSignal): Promise<ParameterReport[]> {
  const all = new Map<string, { bytes: number }>([...checkpoint.tensors, ...checkpoint.unsupported]);
  const helpers = new Map<string, string[]>();
  const isHelper = new Set<string>();
  for (const name of all.keys()) {
    const owner = ownerOf(checkpoint, name);
    if (owner === undefined) continue;
    addTo(helpers, owner, name);
    isHelper.add(name);
  }
  const result: ParameterReport[] = [];
  for (const [name, { bytes }] of all) {
    if (isHelper.has(name)) continue;
    signal?.throwIfAborted();
    const own = helpers.get(name) ?? [];
    const { counts, ...what } = await describe(checkpoint, name, bits, signal);
    result.push({
      name,
      ...what,
      helpers: own,
      parameters: counts ? what.shape.reduce((product, size) => product * size, 1) : 0,
      bytes: own.reduce((sum, helper) => sum + (all.get(helper)?.bytes ?? 0), bytes),
    });
  }
  return result;
}

function byModule(entries: readonly ParameterReport[]): ModuleReport[] {
  const modules = new Map<string, ParameterReport[]>();
  for (const entry of entries) addTo(modules, parent(entry.name), entry);
  return [...modules].map(([name, own]) => ({
    name,
    entries: own,
    parameters: own.reduce((sum, e) => sum + e.parameters, 0),
    bytes: own.reduce((sum, e) => sum + e.bytes, 0),
  }));
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const optionalText = (value: unknown) => (typeof value === 'string' ? value : undefined);

async function optionalJson(folder: string, name: string, signal?: AbortSignal): Promise<Record<string, unknown>> {
  const path = join(folder, name);
  const bytes = await readOptionalFile(path, { signal, maxBytes: maxConfigBytes });
  return bytes ? parseJsonObject(utf8Text(bytes, path), path) : {};
}

function readQuantization(
  config: Record<string, unknown>,
  autoGptq: Record<string, unknown>,
): CheckpointReport['quantization'] {
  const found = isRecord(config.quantization_config)
    ? config.quantization_config
    : Object.keys(autoGptq).length > 0
      ? { quant_method: 'gptq', ...autoGptq }
      : undefined;
  if (!found) return undefined;
  return { method: optionalText(quantizationMethodOf(found)) ?? 'unknown', config: found };
}

/**
 * What the checkpoint in a folder (or one safetensors file) holds: sizes, element types, parameter counts,
 * quantization, module by module. Weights are not read.
 * @throws as openCheckpoint does, and CheckpointError for quantized weights whose parts do not fit together.
 */
export async function inspectCheckpoint(
  folder: string,
  options: OpenCheckpointOptions = {},
): Promise<CheckpointReport> {
  await using checkpoint = await openCheckpoint(folder, options);
  const { signal } = options;
  const config = await optionalJson(checkpoint.folder, 'config.json', signal);
  const autoGptq = await optionalJson(checkpoint.folder, 'quantize_config.json', signal);
  const quantization = readQuantization(config, autoGptq);
  const entries = await listParameters(checkpoint, quantization?.config.bits, signal);
  const { architectures } = config;
  return {
    folder: checkpoint.folder,
    files: checkpoint.files.map((file) => ({
      path: file.path,
      bytes: file.bytes,
      tensors: file.tensors.size + file.unsupported.size,
    })),
    metadata: checkpoint.metadata,
    warnings: checkpoint.warnings,
    modelType: optionalText(config.model_type),
    architectures: Array.isArray(architectures) ? architectures.filter((name) => typeof name === 'string') : undefined,
    torchDtype: optionalText(config.dtype) ?? optionalText(config.torch_dtype),
    quantization,
    dtypes: totals(checkpoint),
    parameters: entries.reduce((sum, entry) => sum + entry.parameters, 0),
    bytes: checkpoint.dataBytes,
    modules: byModule(entries),
  };
}
