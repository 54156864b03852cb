// What a pickle of tensors is made of. Nothing here is ever called or constructed by a name that a file gives.

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

const type = (name: string, bytes: number): ElementType => ({ name, bytes });

/** Classes of storages by the name in module `torch`. */
export const storageTypes: ReadonlyMap<string, ElementType> = new Map([
  ['FloatStorage', type('F32', 4)],
  ['HalfStorage', type('F16', 2)],
  ['BFloat16Storage', type('BF16', 2)],
  ['DoubleStorage', type('F64', 8)],
  ['LongStorage', type('I64', 8)],
  ['IntStorage', type('I32', 4)],
  ['ShortStorage', type('I16', 2)],
  ['CharStorage', type('I8', 1)],
  ['ByteStorage', type('U8', 1)],
  ['BoolStorage', type('BOOL', 1)],
  ['ComplexFloatStorage', type('C64', 8)],
  ['ComplexDoubleStorage', type('C128', 16)],
]);

/** Dtypes by the name in module `torch`, for tensors of untyped storages. */
export const dtypeNames: ReadonlyMap<string, ElementType> = new Map([
  ['float32', type('F32', 4)],
  ['float16', type('F16', 2)],
  ['bfloat16', type('BF16', 2)],
  ['float64', type('F64', 8)],
  ['int64', type('I64', 8)],
  ['int32', type('I32', 4)],
  ['int16', type('I16', 2)],
  ['int8', type('I8', 1)],
  ['uint8', type('U8', 1)],
  ['uint16', type('U16', 2)],
  ['uint32', type('U32', 4)],
  ['uint64', type('U64', 8)],
  ['bool', type('BOOL', 1)],
  ['float8_e4m3fn', type('F8_E4M3', 1)],
  ['float8_e5m2', type('F8_E5M2', 1)],
  ['float8_e8m0fnu', type('F8_E8M0', 1)],
]);
