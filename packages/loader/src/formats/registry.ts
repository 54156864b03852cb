import type { QuantizationConfig } from '@q/config';
import type { Weight } from '@q/tensor';
import { bnb4 } from './bnb4/bnb4.js';
import { dense } from './dense/dense.js';
import type { CheckpointFormat, DescribedFormat, FormatConfig, TensorLookup } from './format.js';
import { gptq } from './gptq/gptq.js';
import { int8 } from './int8/int8.js';

/**
 * Every format that weights are read from and written to, in the order in which they are tried; a new one is a folder
 * and a row here.
 */
export const checkpointFormats = [bnb4, int8, dense] as const;

/** Formats that are described in reports, and not loaded yet. */
export const describedFormats: readonly DescribedFormat[] = [gptq];

type StoredOf<F> = F extends { layer(stored: infer S): unknown } ? S : never;

/** Where a checkpoint keeps a weight, and in which format. */
export type StoredWeight = StoredOf<(typeof checkpointFormats)[number]>;

const formats: readonly CheckpointFormat[] = checkpointFormats;
const find = (kind: string): CheckpointFormat => formats.find((format) => format.kind === kind)!;

/** The format of what {@link recogniseWeight} found. */
export const formatOfStored = (stored: StoredWeight): CheckpointFormat => find(stored.format);

/** The format in which a weight is written. */
export const formatOfWeight = (weight: Weight): CheckpointFormat => find(weight.kind);

/** The format that a label (`nf4`, `int8`, `dense`) is one of. */
export const formatLabelled = (label: string): CheckpointFormat =>
  formats.find(({ labels }) => labels.includes(label))!;

/** The quantized format that a config asks for; undefined when it asks for none, or for one that is not loaded. */
export function formatAsked(config: QuantizationConfig): FormatConfig | undefined {
  return formats.find((format) => format.config?.asks(config))?.config;
}

/**
 * Which tensors form the weight of this name, told by names, dtypes and shapes alone; nothing is read.
 * @param parameter full name, `model.layers.0.mlp.up_proj.weight`
 * @throws CheckpointError naming the tensor when there is no such weight, parts are missing or do not fit together.
 */
export function recogniseWeight(checkpoint: TensorLookup, parameter: string): StoredWeight {
  const weight = checkpoint.tensor(parameter);
  for (const format of checkpointFormats) {
    const stored = format.recognise(checkpoint, weight);
    if (stored) return stored;
  }
  return dense.recognise(checkpoint, weight)!; // which takes what is left
}

/** The tensor under another name in which a format keeps a weight; undefined when it goes by its own. */
export function locateWeight(tensors: { has(name: string): boolean }, parameter: string): string | undefined {
  for (const format of formats) {
    const name = format.locate?.(tensors, parameter);
    if (name !== undefined) return name;
  }
  return undefined;
}

/**
 * The parameter that a helper tensor belongs to: `a.weight.absmax` → `a.weight`, `a.SCB` → `a.weight`; undefined for a
 * tensor that is itself a parameter.
 */
export function helperOwner(name: string): string | undefined {
  for (const format of formats) {
    const owner = format.owner?.(name);
    if (owner !== undefined) return owner;
  }
  return undefined;
}

/** Whether helpers say that the tensor of this name has the shape of packed codes. */
export const isPacked = (tensors: { has(name: string): boolean }, parameter: string): boolean =>
  formats.some((format) => format.packs?.(tensors, parameter));
