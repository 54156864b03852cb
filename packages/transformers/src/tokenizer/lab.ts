export { pipelineOf } from './pipeline.js';
export { Tokenizer } from './tokenizer.js';
export { backtracksLittle } from './pattern-cost.js';
export { parseTokenizer } from './parse.js';
export { patternOf } from './pattern.js';
export { Section } from './section.js';
export { optionalTokenizer } from './load.js';
