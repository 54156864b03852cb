// What goes around the ids of a text or a pair, as the `post_processor` of tokenizer.json says.
import { shown, type Section } from './section.js';

/** Lists of ids: at first one for the text and one for its pair. */
export type IdLists = readonly (readonly number[])[];

export interface PostProcessor {
  process(lists: IdLists, addSpecialTokens: boolean): IdLists;
}

/** Whether a token has an id. */
export type IsTokenId = (id: number) => boolean;

type TemplatePiece = { readonly sequence: number } | { readonly ids: readonly number[] };

function template(section: Section, isTokenId: IsTokenId): PostProcessor {
  const special = section.section('special_tokens');
  const idsOf = (piece: Section): readonly number[] => {
    const name = piece.string('id');
    const token = special.section(name);
    const ids = token.list('ids');
    if (!ids.every((id) => Number.isSafeInteger(id) && isTokenId(id as number)))
      token.fail('ids', `is ${ids.map(shown).join(' ')}, which are no ids of the vocabulary`);
    return ids as readonly number[];
  };
  const pieces = (key: string): TemplatePiece[] =>
    section.sections(key).map((piece) => {
      const sequence = piece.optionalSection('Sequence');
      if (sequence) return { sequence: sequence.word('id', ['A', 'B']) === 'A' ? 0 : 1 };
      return { ids: idsOf(piece.section('SpecialToken')) };
    });
  const [single, pair] = [pieces('single'), pieces('pair')];
  if (single.some((piece) => 'sequence' in piece && piece.sequence === 1)) section.fail('single', 'names text B');
  return {
    process: (lists, adds) =>
      (lists.length > 1 ? pair : single).flatMap((piece) => {
        if ('sequence' in piece) return [lists[piece.sequence]];
        return adds ? [piece.ids] : [];
      }),
  };
}

/** `[token, id]` of BertProcessing and RobertaProcessing. */
function tokenPair(section: Section, key: string, isTokenId: IsTokenId): number {
  const [, id] = section.list(key);
  return Number.isSafeInteger(id) && isTokenId(id as number)
    ? (id as number)
    : section.fail(key, 'is not a token and its id in the vocabulary');
}

function bert(section: Section, isTokenId: IsTokenId): PostProcessor {
  const [sep, cls] = [tokenPair(section, 'sep', isTokenId), tokenPair(section, 'cls', isTokenId)];
  return {
    process: (lists, adds) => (adds ? lists.map((ids, i) => (i === 0 ? [cls, ...ids, sep] : [...ids, sep])) : lists),
  };
}

function roberta(section: Section, isTokenId: IsTokenId): PostProcessor {
  const [sep, cls] = [tokenPair(section, 'sep', isTokenId), tokenPair(section, 'cls', isTokenId)];
  return {
    process: (lists, adds) => (adds ? lists.map((ids, i) => [i === 0 ? cls : sep, ...ids, sep]) : lists),
  };
}

function sequence(section: Section, isTokenId: IsTokenId): PostProcessor {
  const steps = section.sections('processors').map((step) => postProcessorOf(step, isTokenId));
  return { process: (lists, adds) => steps.reduce((out, step) => step.process(out, adds), lists) };
}

const kinds: Readonly<Record<string, (section: Section, isTokenId: IsTokenId) => PostProcessor>> = {
  BertProcessing: bert,
  ByteLevel: () => ({ process: (lists) => lists }), // it changes offsets only
  RobertaProcessing: roberta,
  Sequence: sequence,
  TemplateProcessing: template,
};

/**
 * @throws CheckpointError for settings of the wrong type, UnsupportedError for an unknown kind.
 */
export function postProcessorOf(section: Section, isTokenId: IsTokenId): PostProcessor {
  const type = section.string('type');
  return Object.hasOwn(kinds, type) ? kinds[type](section, isTokenId) : section.unsupported(Object.keys(kinds));
}
