import { dtypeBytes, dtypeFromCode, type DType } from '../dtype.js';
import { evaluate, parseExpression, type Scope } from './expression.js';
import { rules, type Kind, type Rules } from './rules.js';
import { commands, type CommandName, type Fields, type FieldType, type TensorRef } from './schema.js';

type Values = Readonly<Record<string, unknown>>;

/** A value of another kind of field is never asked for: header.ts refuses such a table. */
const floats: readonly DType[] = ['f32', 'f16', 'bf16'];

/** The element types of a kind, beside the activation dtypes of the device. */
export const kindDTypes = (kind: Kind, activations: readonly DType[]): readonly DType[] | undefined => {
  if (kind === 'any') return undefined;
  if (kind === 'act' || kind === 'logits') return activations;
  return kind === 'float' ? floats : [kind];
};

const isTensor = (type: FieldType) => type === 'tensor' || type === 'tensor?';

/** Rules for which a command has no field are not about it: commands share rules. */
export const knows = (fields: Fields, name: string): boolean => Object.hasOwn(fields, name);

interface Level {
  readonly fields: Fields;
  readonly values: Values;
  /** Begins the names of fields in messages: empty, or such as `parts[1].`. */
  readonly prefix: string;
}

class Check {
  #act: DType | undefined;

  constructor(
    private readonly activations: readonly DType[],
    private readonly levels: readonly Level[],
  ) {}

  get #own(): Level {
    return this.levels[0];
  }

  run(own: Rules): void {
    const { fields, values, prefix } = this.#own;
    for (const name in fields)
      if (fields[name] === 'int') this.#integer(name, own.integers?.[name] ?? [0, 2 ** 31 - 1]);
    this.#apply(own, false);
    for (const one of own.cases ?? []) if (this.#holds(one.when)) this.#apply(one, true);
    for (const [list, rulesOfItem] of Object.entries(own.items ?? {})) {
      const { repeat } = fields[list] as { repeat: Fields };
      for (const [i, item] of (values[list] as readonly Values[]).entries()) {
        const level = { fields: repeat, values: item, prefix: `${prefix}${list}[${i}].` };
        new Check(this.activations, [level, ...this.levels]).run(rulesOfItem);
      }
    }
    this.#apart(own);
  }

  #apply({ integers = {}, notNegative = [], tensors = {}, where = [] }: Rules, required: boolean): void {
    const { fields, values, prefix } = this.#own;
    for (const [name, range] of Object.entries(integers)) if (knows(fields, name)) this.#integer(name, range);
    for (const name of notNegative)
      if (!((values[name] as number) >= 0)) this.#refuse(name, `is ${String(values[name])}, must not be negative`);
    for (const [name, [kind, count]] of Object.entries(tensors)) {
      if (!knows(fields, name)) continue;
      const tensor = values[name] as TensorRef | undefined;
      if (tensor) this.#tensor(name, tensor, kind, count);
      else if (required) this.#refuse(name, 'is missing');
    }
    for (const [condition, message] of where) if (!this.#holds(condition)) throw new Error(prefix + message);
  }

  #refuse(name: string, what: string): never {
    throw new Error(`${this.#own.prefix}${name} ${what}`);
  }

  #integer(name: string, [least, largest]: readonly [number, number]): void {
    const value = this.#own.values[name] as number;
    if (!Number.isInteger(value) || value < least || value > largest)
      this.#refuse(name, `is ${value}, must be an integer from ${least} to ${largest}`);
  }

  #tensor(name: string, { dtypeCode, bytes }: TensorRef, kind: Kind, count: string | undefined): void {
    const dtype = dtypeFromCode(dtypeCode);
    const allowed = kindDTypes(kind, this.activations);
    if (allowed && !allowed.includes(dtype)) this.#refuse(name, `is ${dtype}, must be ${allowed.join(', ')}`);
    if (kind === 'act') {
      this.#act ??= dtype;
      if (dtype !== this.#act) this.#refuse(name, `is ${dtype}, other activations are ${this.#act}`);
    }
    const [held, needed] = [bytes / dtypeBytes(dtype), count === undefined ? 0 : this.#value(count)];
    if (!(held >= needed)) this.#refuse(name, `holds ${held} elements, ${needed} are needed`);
  }

  #apart({ writes = [], inPlace = [] }: Rules): void {
    const { fields, values } = this.#own;
    const all = tensorsOf(fields, values, '');
    for (const written of writes) {
      const target = values[written] as TensorRef | undefined;
      if (!target || !knows(fields, written)) continue;
      for (const [name, tensor] of all) {
        if (name === written) continue;
        const together = inPlace.some(([out, other]) => out === written && other === name);
        if (overlaps(target, tensor) && !(together && target.offset === tensor.offset))
          this.#refuse(written, `overlaps ${name}`);
      }
    }
  }

  #holds(condition: string): boolean {
    return this.#value(condition) !== 0;
  }

  #value(text: string): number {
    return evaluate(parseExpression(text), this.#scope);
  }

  readonly #scope: Scope = {
    value: (name) => {
      const level = this.levels.find(({ fields }) => knows(fields, name))!;
      const value = level.values[name];
      if (isTensor(level.fields[name])) return Number(value !== undefined);
      return Array.isArray(value) ? value.length : (value as number);
    },
    tensor: (name) => {
      const { dtypeCode, bytes } = this.#own.values[name] as TensorRef;
      return { dtypeCode, bytes, count: bytes / dtypeBytes(dtypeFromCode(dtypeCode)) };
    },
    list: (path) => {
      const [list, field] = path.split('.');
      return (this.#own.values[list] as readonly Record<string, number>[]).map((item) => item[field]);
    },
  };
}

const overlaps = (a: TensorRef, b: TensorRef): boolean =>
  a.buffer === b.buffer && a.bytes > 0 && b.bytes > 0 && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;

function tensorsOf(fields: Fields, values: Values, prefix: string): [string, TensorRef][] {
  return Object.entries(fields).flatMap(([name, type]): [string, TensorRef][] => {
    if (isTensor(type)) return values[name] ? [[prefix + name, values[name] as TensorRef]] : [];
    if (typeof type === 'string') return [];
    return (values[name] as readonly Values[]).flatMap((item, i) =>
      tensorsOf(type.repeat, item, `${prefix}${name}[${i}].`),
    );
  });
}

/** References to memory: whole numbers, known dtypes, and elements where such elements can be. */
function checkReferences(fields: Fields, values: Values): void {
  for (const [name, { offset, bytes, dtypeCode }] of tensorsOf(fields, values, '')) {
    const dtype = dtypeFromCode(dtypeCode) as DType | undefined;
    if (!dtype) throw new Error(`${name} has an unknown dtype code ${dtypeCode}`);
    for (const [what, value] of [
      ['offset', offset],
      ['bytes', bytes],
    ] as const) {
      if (!Number.isSafeInteger(value) || value < 0)
        throw new Error(`${name} has ${what} ${value}, which must be an integer that is not negative`);
      if (value % dtypeBytes(dtype) !== 0)
        throw new Error(
          `${name} has ${what} ${value}, which must be a multiple of the ${dtypeBytes(dtype)} of ${dtype}`,
        );
    }
  }
  for (const name in fields) if (fields[name] === 'tensor' && !values[name]) throw new Error(`${name} is missing`);
}

/**
 * Checks the arguments of a command by the table of rules, as native drivers do with the code that is generated from
 * it. @throws Error whose message begins with the field
 * @param activations the activation dtypes of the device
 */
export function checkCommand(name: CommandName, values: Values, activations: readonly DType[]): void {
  const fields: Fields = commands[name];
  checkReferences(fields, values);
  new Check(activations, [{ fields, values, prefix: '' }]).run(rules[name]);
}
