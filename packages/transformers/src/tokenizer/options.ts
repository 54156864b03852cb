export interface EncodeOptions {
  /** Second text of a pair. */
  readonly pair?: string;
  /** Add what the tokenizer's template adds (beginning of text and such). Default true. */
  readonly addSpecialTokens?: boolean;
  /**
   * Take the texts of special tokens as text like any other, for input that must not hold any. Default: what
   * tokenizer_config.json says (`split_special_tokens`), else false.
   */
  readonly splitSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens out. Default false. */
  readonly skipSpecialTokens?: boolean;
}

export const encodeOptionNames = ['pair', 'addSpecialTokens', 'splitSpecialTokens'] as const;

export interface PadOptions extends EncodeOptions {
  readonly paddingSide?: 'left' | 'right';
  /** Pad to the longest text of the batch, or to maxLength. Default `longest`. */
  readonly padding?: 'longest' | 'maxLength';
  /** Most tokens of a text, those of the template included. Default: no limit. */
  readonly maxLength?: number;
  /** Cut longer texts to maxLength, at the end and without losing tokens of the template. Default false. */
  readonly truncation?: boolean;
  /** Round the padded length up to a multiple. Default 1. */
  readonly padToMultipleOf?: number;
}

export const padOptionNames = [
  ...encodeOptionNames,
  'paddingSide',
  'padding',
  'maxLength',
  'truncation',
  'padToMultipleOf',
] as const;
