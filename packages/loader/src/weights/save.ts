import type { Bnb4Weight, Int8Weight, ParameterSlot, Tensor } from '@q/tensor';
import { isFloat, type FloatDType } from '@q/tensor';
import { codeBook4bit } from '../bnb/code-books.js';
import { bnb4bitNames, bnbInt8Names } from '../bnb/names.js';
import { formatQuantState } from '../bnb/quant-state.js';
import type { TensorSpec } from '../safetensors/serialize.js';

/** A tensor of a checkpoint to be written, with where its bytes come from. */
export interface StoredTensor extends TensorSpec {
  readonly bytes: () => Promise<Uint8Array>;
}

const fromDevice = (name: string, tensor: Tensor, shape: readonly number[] = tensor.shape): StoredTensor => ({
  name,
  dtype: tensor.dtype,
  shape,
  bytes: () => tensor.toBytes(),
});

const constant = (
  name: string,
  dtype: StoredTensor['dtype'],
  shape: readonly number[],
  bytes: Uint8Array,
): StoredTensor => ({ name, dtype, shape, bytes: async () => bytes });

const asBytes = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

async function bnb4Tensors(parameter: string, weight: Bnb4Weight): Promise<StoredTensor[]> {
  const { codes, absmax, quantType, blockSize, shape } = weight;
  const nested = 'codebook' in absmax ? absmax : undefined;
  const names = bnb4bitNames(parameter, quantType, nested !== undefined);
  const dtype: FloatDType = isFloat(weight.dtype) ? weight.dtype : 'f32';
  const state = formatQuantState({
    quantType,
    blockSize,
    dtype,
    shape: [...shape],
    ...(nested
      ? {
          nested: {
            blockSize: nested.blockSize,
            dtype: 'f32' as const,
            offset: (await nested.offset.data())[0] as number,
          },
        }
      : {}),
  });
  const text = typeof state === 'string' ? new TextEncoder().encode(state) : state;
  return [
    fromDevice(names.weight, codes, [codes.count, 1]),
    fromDevice(names.absmax, nested ? nested.codes : (absmax as Tensor)),
    constant(names.quantMap, 'f32', [16], asBytes(codeBook4bit(quantType))),
    ...(nested
      ? [fromDevice(names.nestedAbsmax!, nested.absmax), fromDevice(names.nestedQuantMap!, nested.codebook)]
      : []),
    constant(names.quantState, 'u8', [text.length], text),
  ];
}

function int8Tensors(module: string, weight: Int8Weight): StoredTensor[] {
  const names = bnbInt8Names(module);
  return [
    fromDevice(names.weight, weight.codes),
    fromDevice(names.scb, weight.absmax),
    constant(names.weightFormat, 'u8', [], new Uint8Array(1)),
  ];
}

/** The tensors of a checkpoint that holds these slots as they are; tied weights are left out. */
export async function storedTensors(slots: readonly ParameterSlot[]): Promise<StoredTensor[]> {
  const tensors: StoredTensor[] = [];
  for (const slot of slots) {
    if (slot.kind === 'tensor') tensors.push(fromDevice(slot.name, slot.current()));
    else if (slot.tiedTo === undefined) {
      const weight = slot.current();
      if (weight.kind === 'dense') tensors.push(fromDevice(slot.name, weight.values));
      else if (weight.kind === 'int8') tensors.push(...int8Tensors(slot.module, weight));
      else tensors.push(...(await bnb4Tensors(slot.name, weight)));
    }
  }
  return tensors;
}
