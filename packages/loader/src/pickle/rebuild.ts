// What the names in a pickle of tensors stand for. The list is closed: a name that is not here is refused, and nothing
// is ever looked up by it. Source: torch/_utils.py and torch/serialization.py.
import { maxRank } from '../limits.js';
import {
  Dict,
  dtypeNames,
  Global,
  List,
  Storage,
  storageTypes,
  StridedTensor,
  Tuple,
  type ElementType,
  type PickleValue,
} from './values.js';

/** Something in a pickle that does not fit together; the file is named where it is caught. */
export class PickleFault extends Error {}

/** Something in a pickle that is not read, whatever it is for; the file is named where it is caught. */
export class PickleRefusal extends Error {}

const fault = (what: string): never => {
  throw new PickleFault(what);
};

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const count = (value: PickleValue, what: string): number => (isCount(value) ? value : fault(`${what} is no count`));

function counts(value: PickleValue, what: string): number[] {
  if (!(value instanceof Tuple) || value.items.length > maxRank) return fault(`${what} is no tuple of sizes`);
  return value.items.map((item) => count(item, what));
}

function strided(
  storage: PickleValue,
  offset: PickleValue,
  size: PickleValue,
  stride: PickleValue,
  stated?: ElementType,
): StridedTensor {
  if (!(storage instanceof Storage)) return fault('a tensor has no storage');
  const type = stated ?? storage.type;
  if (!type) return fault('a tensor of an untyped storage has no dtype');
  const shape = counts(size, 'the shape of a tensor');
  const strides = counts(stride, 'the strides of a tensor');
  if (strides.length !== shape.length) fault('shape and strides of a tensor differ in length');
  return new StridedTensor(storage, type, storage.start + count(offset, 'the offset of a tensor'), shape, strides);
}

const dtypeOf = (value: PickleValue): ElementType =>
  value instanceof Global && value.module === 'torch'
    ? (dtypeNames.get(value.name) ?? fault(`${value.path} is no dtype`))
    : fault('a tensor has no dtype');

const tensorOf = (value: PickleValue): StridedTensor =>
  value instanceof StridedTensor ? value : fault('a parameter holds no tensor');

/** A dict of pairs, as OrderedDict([...]) of Python 2. The list is used up, or naming it again would cost it again. */
function dictOf(pairs: PickleValue | undefined): Dict {
  const dict = new Dict();
  if (pairs === undefined) return dict;
  if (!(pairs instanceof List)) return fault('an OrderedDict is made of no list');
  for (const pair of pairs.items.splice(0)) {
    if (!(pair instanceof Tuple) || pair.items.length !== 2) return fault('an OrderedDict is made of no pairs');
    dict.entries.set(pair.items[0], pair.items[1]);
  }
  return dict;
}

type Arguments = readonly PickleValue[];

/** What may be called, by the path of its name. */
const callables: ReadonlyMap<string, (args: Arguments) => PickleValue> = new Map<
  string,
  (args: Arguments) => PickleValue
>([
  ['collections.OrderedDict', ([pairs]) => dictOf(pairs)],
  ['torch.Size', ([sizes]) => sizes],
  ['torch._utils._rebuild_tensor', ([storage, offset, size, stride]) => strided(storage, offset, size, stride)],
  ['torch._utils._rebuild_tensor_v2', ([storage, offset, size, stride]) => strided(storage, offset, size, stride)],
  [
    'torch._utils._rebuild_tensor_v3',
    ([storage, offset, size, stride, , , dtype]) => strided(storage, offset, size, stride, dtypeOf(dtype)),
  ],
  ['torch._utils._rebuild_parameter', ([data]) => tensorOf(data)],
  ['torch._utils._rebuild_parameter_with_state', ([data]) => tensorOf(data)],
]);

/** Storages and dtypes stand for themselves. */
const isType = ({ module, name }: Global): boolean =>
  (module === 'torch' && (storageTypes.has(name) || dtypeNames.has(name))) ||
  (module === 'torch.storage' && name === 'UntypedStorage');

/** A name of a pickle. @throws PickleRefusal for one that makes no tensors */
export function globalOf(module: string, name: string): Global {
  const named = new Global(module, name);
  if (callables.has(named.path) || isType(named)) return named;
  throw new PickleRefusal(`it asks Python for ${named.path.slice(0, 200)}`);
}

/** The result of a call that the pickle asks for. */
export function called(callee: PickleValue, args: PickleValue): PickleValue {
  if (!(callee instanceof Global) || !(args instanceof Tuple)) return fault('something else than a function is called');
  const make = callables.get(callee.path) ?? fault(`${callee.path} is called`);
  return make(args.items) ?? fault(`${callee.path} is called without arguments`);
}

/** A storage by its persistent id: ('storage', class, key, location, elements, view?). */
export function storageOf(id: PickleValue): Storage {
  if (!(id instanceof Tuple) || id.items[0] !== 'storage') return fault('a persistent id is that of no storage');
  const [, cls, key, , elements, view] = id.items;
  if (!(cls instanceof Global) || !isType(cls)) return fault('a storage has no class');
  if (typeof key !== 'string') return fault('a storage has no key');
  const type = storageTypes.get(cls.name);
  const start = view instanceof Tuple ? count(view.items[1], 'the offset of a storage') : 0;
  return new Storage(key, type, count(elements, 'the length of a storage'), start);
}
