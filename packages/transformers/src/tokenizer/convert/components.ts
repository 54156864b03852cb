// Parts of tokenizer.json that several Python classes build.
import type { Json } from '../section.js';

export type Component = Json & { readonly type: string };

const mark = '\u2581';

export const sequenceOf = (
  kind: 'normalizers' | 'pretokenizers' | 'decoders',
  parts: readonly Component[],
): Component => ({
  type: 'Sequence',
  [kind]: parts,
});

export const replaceText = (text: string, content: string): Component => ({
  type: 'Replace',
  pattern: { String: text },
  content,
});

export const replaceRegex = (regex: string, content: string): Component => ({
  type: 'Replace',
  pattern: { Regex: regex },
  content,
});

/** SentencePiece's character map, where a model has one. */
export const precompiled = (map: Buffer | undefined): Component[] =>
  map ? [{ type: 'Precompiled', precompiled_charsmap: map.toString('base64') }] : [];

export const metaspace = (scheme: 'always' | 'first' | 'never', split = true): Component => ({
  type: 'Metaspace',
  replacement: mark,
  prepend_scheme: scheme,
  split,
});

/** Words with the mark before each: what most Unigram classes do. */
export const markedWords = (scheme: 'always' | 'never' = 'always'): Component =>
  sequenceOf('pretokenizers', [{ type: 'WhitespaceSplit' }, metaspace(scheme)]);

export const byteLevel = (addPrefixSpace: boolean, useRegex = true): Component => ({
  type: 'ByteLevel',
  add_prefix_space: addPrefixSpace,
  trim_offsets: true,
  use_regex: useRegex,
});

/** Marks to spaces, bytes to characters, and without the first space where the encoder adds one. */
export const spaceDecoder = (bytes: boolean, strips: boolean): Component =>
  sequenceOf('decoders', [
    replaceText(mark, ' '),
    ...(bytes ? [{ type: 'ByteFallback' }, { type: 'Fuse' }] : []),
    ...(strips ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
  ]);

/** A template of pieces: `$A`, `$B`, and tokens. @param idOf throws for tokens that do not exist */
export function template(
  single: readonly string[],
  pair: readonly string[],
  idOf: (token: string) => number,
): Component {
  const piece = (text: string) =>
    text === '$A' || text === '$B'
      ? { Sequence: { id: text.slice(1), type_id: 0 } }
      : { SpecialToken: { id: text, type_id: 0 } };
  const tokens = [...new Set([...single, ...pair])].filter((text) => text !== '$A' && text !== '$B');
  return {
    type: 'TemplateProcessing',
    single: single.map(piece),
    pair: pair.map(piece),
    special_tokens: Object.fromEntries(tokens.map((text) => [text, { id: text, ids: [idOf(text)], tokens: [text] }])),
  };
}
