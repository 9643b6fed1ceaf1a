"""Tiny models of every class, with a tokenizer, as `transformers` writes them."""

import pytest
import torch

WORDS = "a the one two red fox sees eats green apple rain text longer another question where does sun rise in east west"


@pytest.fixture(scope="session")
def tokenizer():
    """Whole words and single characters, lower-cased, with BERT's frame around a text or a pair."""
    transformers = pytest.importorskip("transformers", reason="exports what transformers has")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    pieces = [*special, *characters, *(f"##{c}" for c in characters)]
    pieces += [word for word in WORDS.split() if word not in pieces]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return transformers.ElectraTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


@pytest.fixture(scope="session")
def saved(tokenizer, tmp_path_factory):
    """``saved("ElectraForTokenClassification", num_labels=3)``: the directory of a model whose every weight matters."""
    import transformers

    def make(name: str, **options: object) -> str:
        sizes = {
            "vocab_size": len(tokenizer),
            "embedding_size": 16,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 40,
        }
        torch.manual_seed(0)
        model = getattr(transformers, name)(transformers.ElectraConfig(**{**sizes, **options}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return make
