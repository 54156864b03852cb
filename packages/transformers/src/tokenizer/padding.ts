// Lists of ids of several lengths as a rectangle.
import { ConfigError } from '@q/config';
import { checkCount, checkFlag, checkWord } from './inputs.js';
import type { PadOptions } from './options.js';

/** Ids and mask (1 for tokens, 0 for padding), each [texts, longest]. */
export interface PaddedBatch {
  inputIds: number[][];
  attentionMask: number[][];
}

/**
 * The ids of a text, cut so that it has at most `maxLength` with what the template adds before and after it.
 * @param plain the ids without what the template adds
 */
export function truncated(ids: readonly number[], plain: readonly number[], options: PadOptions): number[] {
  const maxLength = options.maxLength!;
  if (options.pair !== undefined)
    throw new ConfigError('batchEncode', 'pairs cannot be truncated', { fix: 'shorten the texts' });
  const added = ids.length - plain.length;
  const places = Array.from({ length: added + 1 }, (_, at) => at);
  const before = places.find((at) => plain.every((id, i) => id === ids[at + i])) ?? 0;
  if (added > maxLength) throw new ConfigError('batchEncode', `the template alone adds ${added} tokens`, { maxLength });
  return [...ids.slice(0, before), ...plain.slice(0, maxLength - added), ...ids.slice(before + plain.length)];
}

/** @throws ConfigError for values that cannot be. */
export function checkPadOptions(options: PadOptions): void {
  const { padding = 'longest', truncation = false, maxLength } = options;
  checkWord('batchEncode', 'padding', options.padding, ['longest', 'maxLength']);
  checkWord('batchEncode', 'paddingSide', options.paddingSide, ['left', 'right']);
  checkFlag('batchEncode', 'truncation', options.truncation);
  checkCount('batchEncode', 'maxLength', maxLength);
  checkCount('batchEncode', 'padToMultipleOf', options.padToMultipleOf);
  if (maxLength === undefined && (truncation || padding === 'maxLength'))
    throw new ConfigError('batchEncode', 'maxLength is missing', { padding, truncation });
}

/** @throws ConfigError when there is nothing to pad with, or a list is longer than `maxLength`. */
export function padded(
  lists: readonly (readonly number[])[],
  options: PadOptions & { readonly paddingSide: 'left' | 'right' },
  pad: number | undefined,
): PaddedBatch {
  const { paddingSide, padding = 'longest', maxLength, padToMultipleOf = 1 } = options;
  const longest = lists.reduce((max, ids) => Math.max(max, ids.length), 0);
  if (longest > (maxLength ?? longest))
    throw new ConfigError('batchEncode', `a text has ${longest} tokens`, {
      maxLength,
      fix: 'set truncation to true or raise maxLength',
    });
  const length = Math.ceil((padding === 'maxLength' ? maxLength! : longest) / padToMultipleOf) * padToMultipleOf;
  if (pad === undefined && lists.some((ids) => ids.length < length))
    throw new ConfigError('batchEncode', 'the tokenizer has no padding token', { fix: 'give texts of one length' });
  const row = <T>(own: readonly T[], filler: T): T[] => {
    const fill = new Array<T>(length - own.length).fill(filler);
    return paddingSide === 'left' ? [...fill, ...own] : [...own, ...fill];
  };
  return {
    inputIds: lists.map((ids) => row(ids, pad ?? 0)),
    attentionMask: lists.map((ids) => row(new Array<number>(ids.length).fill(1), 0)),
  };
}
