import { BitsAndBytesConfig, type QuantizationConfig } from '@q/config';
import {
  isFloat,
  parseDType,
  quantizeBnb4,
  type Bnb4Weight,
  type DType,
  type LinearSlot,
  type NestedAbsmax,
  type Tensor,
} from '@q/tensor';
import { bitsAndBytes, isBitsAndBytes } from '../bitsandbytes/config.js';
import { checkScales } from '../bitsandbytes/parts.js';
import { checkShape } from '../check-shape.js';
import type { CheckpointFormat, FormatConfig, StoredTensor, WeightReader } from '../format.js';
import { constant, fromDevice } from '../stored-tensor.js';
import { checkNestedQuantMap, checkQuantMap, codeBook4bit } from './code-books.js';
import { bnb4bitNames, bnb4bitOwner } from './names.js';
import { formatQuantState, type QuantState } from './quant-state.js';
import { check4bitState, read4bitState, recogniseBnb4bit, type StoredBnb4bit } from './recognise.js';

/** The dtype in which 4-bit products are computed. */
const computeDtypeOf = (config: BitsAndBytesConfig): DType => parseDType(config.bnb4bitComputeDtype);

const asBytes = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

const typeName = (type: string, double: boolean) => `${type}${double ? ' with' : ' without'} double quantization`;

const config: FormatConfig<BitsAndBytesConfig> = {
  ...bitsAndBytes,
  integerProducts: false,
  asks: (given): given is BitsAndBytesConfig => isBitsAndBytes(given) && given.loadIn4bit,
  describe: ({ bnb4bitQuantType, bnb4bitUseDoubleQuant }) =>
    `${bnb4bitQuantType}${bnb4bitUseDoubleQuant ? ' double quant' : ''}`,
  bits: () => 4,
  quantizer: (given) => {
    const { bnb4bitQuantType: quantType, bnb4bitUseDoubleQuant: doubleQuant } = given;
    return (dense) => quantizeBnb4(dense, { quantType, doubleQuant, computeDtype: computeDtypeOf(given) });
  },
  derive: ({ format, nested = false }, dtype) => ({
    config: new BitsAndBytesConfig({
      loadIn4bit: true,
      bnb4bitQuantType: format as BitsAndBytesConfig['bnb4bitQuantType'],
      bnb4bitUseDoubleQuant: nested,
      bnb4bitComputeDtype: dtype,
    }),
    note: `, with ${dtype} products`,
  }),
  corrected: (stated, { format, nested = false }) => {
    const { bnb4bitQuantType: type, bnb4bitUseDoubleQuant: double } = stated;
    if (format === type && nested === double) return { config: stated };
    return {
      config: stated.with({
        bnb4bitQuantType: format as BitsAndBytesConfig['bnb4bitQuantType'],
        bnb4bitUseDoubleQuant: nested,
      }),
      warning: `quantization_config says ${typeName(type, double)}, the weights are ${typeName(format, nested)}: taken as stored`,
    };
  },
};

/** NF4 and FP4 as bitsandbytes writes them. */
export const bnb4: CheckpointFormat<StoredBnb4bit, Bnb4Weight> = {
  kind: 'bnb4',
  labels: ['nf4', 'fp4'],
  config,
  owner: bnb4bitOwner,
  packs: (tensors, parameter) =>
    (['nf4', 'fp4'] as const).some((type) => {
      const { absmax, quantState } = bnb4bitNames(parameter, type, false);
      return tensors.has(quantState) || tensors.has(absmax);
    }),
  recognise: recogniseBnb4bit,
  layer: ({ quantType, nested }) => ({ format: quantType, nested }),
  originalDType: async (checkpoint, stored, options) => (await read4bitState(checkpoint, stored, options)).dtype,
  describe: async (checkpoint, stored, options) => {
    const { shape, dtype } = await read4bitState(checkpoint, stored, options);
    const format = `bnb-${stored.quantType}`;
    return { format, storedAs: format, shape, dtype, counts: true };
  },
  read,
  write,
};

async function read(
  stored: StoredBnb4bit,
  slot: LinearSlot,
  reader: WeightReader,
  settings?: QuantizationConfig,
): Promise<Bnb4Weight> {
  const state = check4bitState(stored, await reader.bytes(stored.quantState));
  checkShape({ ...stored.weight, shape: state.shape }, slot.shape);
  checkQuantMap(stored.quantMap, await reader.bytes(stored.quantMap), stored.quantType);
  return reader.owning(async (own) => {
    const codes = own(reader.load(stored.weight, [stored.weight.bytes], 'u8'));
    const absmax = own(await reader.checked(stored.absmax, stored.nested ? undefined : checkScales));
    return {
      kind: 'bnb4',
      shape: slot.shape,
      quantType: stored.quantType,
      blockSize: state.blockSize,
      codes,
      absmax: state.nested ? await readNested(stored, state.nested, absmax, reader, own) : absmax,
      dtype: state.dtype,
      computeDtype: settings && config.asks(settings) ? computeDtypeOf(settings) : 'f32',
    };
  });
}

async function readNested(
  { nestedAbsmax, nestedQuantMap }: StoredBnb4bit,
  state: NonNullable<QuantState['nested']>,
  codes: Tensor,
  reader: WeightReader,
  own: (tensor: Tensor) => Tensor,
): Promise<NestedAbsmax> {
  checkNestedQuantMap(nestedQuantMap!, await reader.bytes(nestedQuantMap!));
  const absmax = own(await reader.checked(nestedAbsmax!, checkScales));
  const codebook = own(await reader.checked(nestedQuantMap!));
  const offset = own(reader.backend.allocate([1], 'f32'));
  reader.backend.assign(offset, [state.offset]);
  return { codes, absmax, codebook, offset, blockSize: state.blockSize };
}

async function write({ name }: LinearSlot, weight: Bnb4Weight): Promise<StoredTensor[]> {
  const { codes, absmax, quantType, blockSize, shape, dtype } = weight;
  const nested = 'codebook' in absmax ? absmax : undefined;
  const names = bnb4bitNames(name, quantType, nested !== undefined);
  const state = formatQuantState({
    quantType,
    blockSize,
    dtype: isFloat(dtype) ? dtype : 'f32',
    shape: [...shape],
    ...(nested && {
      nested: { blockSize: nested.blockSize, dtype: 'f32', offset: (await nested.offset.data())[0] as number },
    }),
  });
  const text = new TextEncoder().encode(state);
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
