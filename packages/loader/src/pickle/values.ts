// What a pickle of tensors is made of. Nothing here is ever called or constructed by a name that a file gives.
import { storedDType } from '../safetensors/dtypes.js';

/** A Python tuple. */
export class Tuple {
  constructor(readonly items: readonly PickleValue[]) {}
}

/** A Python list. */
export class List {
  readonly items: PickleValue[] = [];
}

/** A Python dict, an OrderedDict too; only texts and numbers are keys of what is of use here. */
export class Dict {
  readonly entries = new Map<PickleValue, PickleValue>();
}

/** A name in a Python module: `torch._utils._rebuild_tensor_v2`. */
export class Global {
  constructor(
    readonly module: string,
    readonly name: string,
  ) {}

  get path(): string {
    return `${this.module}.${this.name}`;
  }
}

/** A storage: bytes that tensors are views of. */
export class Storage {
  constructor(
    readonly key: string,
    /** Element type; undefined where the tensors say it. */
    readonly type: ElementType | undefined,
    /** Elements; bytes where the type is undefined. */
    readonly length: number,
    /** Elements of the storage of this key before this one begins. */
    readonly start: number,
  ) {}
}

/** A view of a storage. */
export class StridedTensor {
  constructor(
    readonly storage: Storage,
    readonly type: ElementType,
    /** In elements, from the beginning of the storage of its key. */
    readonly offset: number,
    readonly shape: readonly number[],
    /** In elements. */
    readonly strides: readonly number[],
  ) {}
}

export type PickleValue =
  null | boolean | number | bigint | string | Tuple | List | Dict | Global | Storage | StridedTensor;

/** An element type, as safetensors spells it where that format has it. */
export interface ElementType {
  readonly name: string;
  readonly bytes: number;
}

const type = (name: string): ElementType => ({ name, bytes: storedDType(name)!.bits / 8 });

/** Classes of storages by the name in module `torch`. */
export const storageTypes: ReadonlyMap<string, ElementType> = new Map([
  ['FloatStorage', type('F32')],
  ['HalfStorage', type('F16')],
  ['BFloat16Storage', type('BF16')],
  ['DoubleStorage', type('F64')],
  ['LongStorage', type('I64')],
  ['IntStorage', type('I32')],
  ['ShortStorage', type('I16')],
  ['CharStorage', type('I8')],
  ['ByteStorage', type('U8')],
  ['BoolStorage', type('BOOL')],
  ['ComplexFloatStorage', type('C64')],
  ['ComplexDoubleStorage', { name: 'C128', bytes: 16 }],
]);

/** Dtypes by the name in module `torch`, for tensors of untyped storages. */
export const dtypeNames: ReadonlyMap<string, ElementType> = new Map([
  ['float32', type('F32')],
  ['float16', type('F16')],
  ['bfloat16', type('BF16')],
  ['float64', type('F64')],
  ['int64', type('I64')],
  ['int32', type('I32')],
  ['int16', type('I16')],
  ['int8', type('I8')],
  ['uint8', type('U8')],
  ['uint16', type('U16')],
  ['uint32', type('U32')],
  ['uint64', type('U64')],
  ['bool', type('BOOL')],
  ['float8_e4m3fn', type('F8_E4M3')],
  ['float8_e5m2', type('F8_E5M2')],
  ['float8_e8m0fnu', type('F8_E8M0')],
]);
