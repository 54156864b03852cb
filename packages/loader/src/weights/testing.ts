// Helpers of the tests of loading: a small model of three linear layers on the reference backend.
import { afterEach, expect } from 'vitest';
import { BitsAndBytesConfig, CheckpointError } from '@q/config';
import {
  disposeWeight,
  referenceBackend,
  type Backend,
  type DType,
  type ParameterSlot,
  type Tensor,
  type Weight,
} from '@q/tensor';
import { openCheckpoint, type Checkpoint } from '../checkpoint.js';
import { temporary } from '../testing.js';
import { SafetensorsWriter } from '../write/writer.js';
import { loadParameters, type LoadOptions } from './load.js';
import { quantizerFor } from './quantize.js';
import { storedTensors } from './save.js';

const temp = temporary();
let folders = 0;
const backends: Backend[] = [];
afterEach(async () => {
  for (const backend of backends.splice(0)) await backend.close();
});

export const linears: Record<string, readonly [number, number]> = { a: [16, 64], 'deep.b': [6, 128], head: [10, 64] };
export const tensors: Record<string, readonly number[]> = {
  'embed.weight': [10, 64],
  'norm.weight': [64],
  'a.bias': [16],
};

/** The places of a small model, and what was put there. */
export function emptyModel({ tied = false } = {}): {
  slots: ParameterSlot[];
  weights: Map<string, Weight>;
  dense: Map<string, Tensor>;
  dispose: () => void;
} {
  const weights = new Map<string, Weight>();
  const dense = new Map<string, Tensor>();
  const shared = new Set<string>();
  const slots: ParameterSlot[] = [
    ...Object.entries(tensors).map(([name, shape]): ParameterSlot => ({
      kind: 'tensor',
      name,
      shape,
      load: (tensor) => void dense.set(name, tensor.keep()),
      current: () => dense.get(name)!,
    })),
    ...Object.entries(linears).map(([module, shape]): ParameterSlot => ({
      kind: 'linear',
      module,
      name: `${module}.weight`,
      shape,
      tiedTo: tied && module === 'head' ? 'embed.weight' : undefined,
      load: (weight, options) => {
        weights.set(module, weight);
        if (options?.shared) shared.add(module);
      },
      current: () => weights.get(module)!,
    })),
  ];
  const dispose = () => {
    for (const [module, weight] of weights) if (!shared.has(module)) disposeWeight(weight);
    for (const tensor of dense.values()) tensor.dispose();
  };
  return { slots, weights, dense, dispose };
}

export const allShapes = (): Record<string, readonly number[]> => ({
  ...tensors,
  ...Object.fromEntries(Object.entries(linears).map(([module, shape]) => [`${module}.weight`, shape])),
});

/** Bytes that are a plain pattern of small finite numbers in f32. */
export function pattern(name: string, shape: readonly number[]): Uint8Array {
  const count = shape.reduce((a, b) => a * b, 1);
  return new Uint8Array(
    Float32Array.from({ length: count }, (_, i) => ((i * 37 + name.length * 11) % 101) / 50 - 1).buffer,
  );
}

export interface Stored {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export async function write(
  contents: Readonly<Record<string, Stored>>,
  options: { maxShardSize?: number } = {},
): Promise<string> {
  const folder = await temp.sub(`weights-${folders++}`);
  const writer = new SafetensorsWriter(folder, options);
  for (const [name, { dtype, shape }] of Object.entries(contents)) writer.declare({ name, dtype, shape });
  await writer.write(async ({ name }) => contents[name].bytes);
  return folder;
}

export const denseContents = (): Record<string, Stored> =>
  Object.fromEntries(
    Object.entries(allShapes()).map(([name, shape]) => [
      name,
      { dtype: 'f32' as const, shape, bytes: pattern(name, shape) },
    ]),
  );

export function backend(): Backend {
  const made = referenceBackend();
  backends.push(made);
  return made;
}

async function joined(data: Promise<Uint8Array> | AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  if (data instanceof Promise) return data;
  const pieces: Uint8Array[] = [];
  for await (const piece of data) pieces.push(piece);
  return Uint8Array.from(Buffer.concat(pieces));
}

/** What the checkpoint of `save` of a loaded model holds. */
export async function saved(slots: readonly ParameterSlot[]): Promise<Record<string, Stored>> {
  const list = await storedTensors(slots);
  return Object.fromEntries(
    await Promise.all(
      list.map(
        async ({ name, dtype, shape, bytes }) => [name, { dtype, shape, bytes: await joined(bytes()) }] as const,
      ),
    ),
  );
}

export const nf4 = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' });
export const nested = new BitsAndBytesConfig({
  loadIn4bit: true,
  bnb4bitQuantType: 'fp4',
  bnb4bitUseDoubleQuant: true,
});
export const int8 = new BitsAndBytesConfig({ loadIn8bit: true });

/** The small model quantized, as a checkpoint. */
export async function quantizedContents(config: BitsAndBytesConfig): Promise<Record<string, Stored>> {
  const device = backend();
  const model = emptyModel();
  await using checkpoint = await openCheckpoint(await write(denseContents()));
  await loadParameters(checkpoint, model.slots, { backend: device, quantizer: quantizerFor(config, ['head']) });
  const contents = await saved(model.slots);
  model.dispose();
  expect(device.memory().usedBytes).toBe(0);
  return contents;
}

/** Loads, expects a failure, and that nothing stays once the model is disposed. */
export async function failure(checkpoint: Checkpoint, options: Partial<LoadOptions> = {}): Promise<CheckpointError> {
  const device = backend();
  const model = emptyModel();
  const error: unknown = await loadParameters(checkpoint, model.slots, { backend: device, ...options }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  model.dispose();
  expect(device.memory().usedBytes).toBe(0);
  await device.flush();
  return error as CheckpointError;
}

export const failureOf = async (
  contents: Readonly<Record<string, Stored>>,
  options: Partial<LoadOptions> = {},
): Promise<CheckpointError> => {
  await using checkpoint = await openCheckpoint(await write(contents));
  const error = await failure(checkpoint, options);
  expect(error).toBeInstanceOf(CheckpointError);
  return error;
};

export const replace = (
  contents: Record<string, Stored>,
  name: string,
  change: Partial<Stored>,
): Record<string, Stored> => {
  expect(contents[name], name).toBeDefined();
  return { ...contents, [name]: { ...contents[name], ...change } };
};
export const withFloat = (bytes: Uint8Array, index: number, value: number): Uint8Array => {
  const copy = bytes.slice();
  new DataView(copy.buffer).setFloat32(4 * index, value, true);
  return copy;
};
