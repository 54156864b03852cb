// Methods of list, tuple, range and dict that change nothing.
import type { BuiltIn } from './built-in.js';
import { equals } from './compare.js';
import { fail } from './errors.js';
import { Dict, DictView, iterate, type Range, type Tuple, type Value } from './values.js';

export type Sequence = readonly Value[] | Tuple | Range;

export const listMethods: ReadonlyMap<string, BuiltIn<Sequence>> = new Map<string, BuiltIn<Sequence>>([
  [
    'index',
    {
      parameters: ['value'],
      required: 1,
      run: (budget, list, value) => {
        const at = iterate(list, budget).findIndex((item) => equals(item, value!, budget));
        return at >= 0 ? at : fail('value is not in list');
      },
    },
  ],
  [
    'count',
    {
      parameters: ['value'],
      required: 1,
      run: (budget, list, value) => iterate(list, budget).filter((item) => equals(item, value!, budget)).length,
    },
  ],
  ['copy', { parameters: [], run: (budget, list) => [...iterate(list, budget)] }],
]);

const view = (part: DictView['part']): BuiltIn<Dict> => ({
  parameters: [],
  run: (_, dict) => new DictView(dict, part),
});

export const dictMethods: ReadonlyMap<string, BuiltIn<Dict>> = new Map<string, BuiltIn<Dict>>([
  ['keys', view('keys')],
  ['values', view('values')],
  ['items', view('items')],
  [
    'get',
    {
      parameters: ['key', 'default'],
      required: 1,
      run: (budget, dict, key, otherwise = null) => {
        budget.key(key);
        const value = dict.get(key!);
        return value === undefined ? otherwise : value;
      },
    },
  ],
  [
    'copy',
    {
      parameters: [],
      run: (budget, dict) => {
        budget.step(dict.size);
        return new Dict(dict.items());
      },
    },
  ],
]);
