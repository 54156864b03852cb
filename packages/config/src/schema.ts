import { z } from 'zod';
import { MAX_LIST } from './limits.js';
import { QError } from './errors.js';
import type { DTypeName } from './dtype.js';
import { parseDType } from './dtype.js';

/** Optional, and null (Python's None) when missing. */
export const nullable = <S extends z.ZodType>(schema: S) => schema.nullish().transform((value) => value ?? null);

/** Optional; missing or null means `fallback`. */
export const orElse = <S extends z.ZodType>(schema: S, fallback: z.output<S>) =>
  schema.nullish().transform((value) => value ?? fallback);

export const flag = (fallback: boolean) => orElse(z.boolean({ error: 'must be true or false' }), fallback);
export const integer = z.int({ error: 'must be an integer' });
export const positive = integer.min(1, { error: 'must be at least 1' });

/** A size from a file: 1 to `max` (see limits.ts). */
export const sizeUpTo = (max: number) =>
  positive.max(max, { error: `must be at most ${max}, more than any model has` });
/** A number from a file between two bounds of limits.ts. */
export const realIn = ({ min, max }: { readonly min: number; readonly max: number }) =>
  real.min(min, { error: `must be in [${min}, ${max}]` }).max(max, { error: `must be in [${min}, ${max}]` });
export const real = z.number({ error: 'must be a finite number' });
export const text = z.string({ error: 'must be a string' });
/** A list whose length is looked at before its entries are. */
export const listOf = <S extends z.ZodType>(entry: S, error: string, max = MAX_LIST) =>
  z
    .custom<unknown[]>((value) => !Array.isArray(value) || value.length <= max, {
      error: `must have at most ${max} entries`,
    })
    .pipe(z.array(entry, { error }));
export const texts = listOf(text, 'must be a list of strings');
export const ids = listOf(integer, 'must be a list of token ids');
export const idOrIds = z.union([integer, ids], { error: 'must be a token id or a list of token ids' });
export const record = z.record(z.string(), z.json(), { error: 'must be an object' });

/** A dtype by any of its names, restricted to `allowed`. */
export const dtype = <D extends DTypeName>(allowed: readonly D[]) =>
  z.unknown().transform((value, context): D => {
    try {
      const name = parseDType(value);
      const found = allowed.find((candidate) => candidate === name);
      if (found !== undefined) return found;
    } catch (error) {
      if (!(error instanceof QError)) throw error;
    }
    context.addIssue({ code: 'custom', message: `must be one of ${allowed.join(', ')}`, input: value });
    return z.NEVER;
  });
