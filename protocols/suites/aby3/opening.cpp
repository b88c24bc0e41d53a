// SPDX-License-Identifier: Apache-2.0
#include "suites/aby3/opening.h"

#include <utility>

namespace tercet::protocols::aby3 {

Opening::Opening(Party& party, ActivationSpec spec, Layout layout, const Roles& roles,
                 const std::string& purpose)
    : spec_(std::move(spec)),
      layout_(std::move(layout)),
      d_(roles.helper),
      e1_(roles.Evaluator1()),
      e2_(roles.Evaluator2()) {
  if (party.Id() != e2_) with_e1_ = party.Keys().Open(e1_, purpose);
  if (party.Id() != e1_) with_e2_ = party.Keys().Open(d_, purpose);
}

Opened Opening::Open(Context& ctx, const AnyMatrix& z) {
  return ring::DispatchWord(spec_.ring_bits,
                            [&]<Word W>(W) { return OpenMasked<W>(ctx, z.As<W>()); });
}

template <Word W>
Opened Opening::OpenMasked(Context& ctx, const Matrix<W>& z) {
  const std::size_t rows = z.shape()[0], cols = z.shape()[1];
  const AdderShape& shape = layout_.carries.front();
  Opened opened;
  // Both holders of a key draw in this order: the mask of z, the share of a's bits, that of a.
  Matrix<W> mine = z;
  if (with_e1_ && !spec_.opened) {
    if (ctx.Is(d_)) {
      mine -= with_e1_->Draw<W>(rows, cols);
    } else {
      mine += with_e1_->Draw<W>(rows, cols);
    }
  }
  if (with_e2_ && !spec_.opened) {
    if (ctx.Is(d_)) {
      mine -= with_e2_->Draw<W>(rows, cols);
    } else {
      mine += with_e2_->Draw<W>(rows, cols);
    }
  }
  Planes drawn;
  if (with_e1_) {
    drawn = Planes(shape.SharedRows(), rows * cols);
    with_e1_->Draw(drawn.All());
  }

  if (ctx.Is(d_)) {
    const Planes bits = mpc::Slice(std::span<const W>(mine.data(), mine.size()), spec_.value_bits);
    Planes masked = SharedRows(shape, bits);
    masked ^= drawn;
    if (shape.width > 0) ctx.SendBytes(e2_, Pack(masked));  // 1 hop, 1 bit a row
    opened.input.a = {std::move(masked), std::move(drawn)};
    if (!layout_.square) opened.top = mpc::Row(bits, spec_.value_bits - 1);
  } else {
    if (!spec_.opened) {  // else it is b
      const int peer = ctx.Is(e1_) ? e2_ : e1_;
      ctx.Send(peer, mine, layout_.opened_bits);  // the same hop, opened_bits, each way
      mine += ctx.Receive<W>(peer, rows, cols, layout_.opened_bits);  // b
    }
    opened.input.b = mpc::Slice(std::span<const W>(mine.data(), mine.size()), spec_.value_bits);
    const std::size_t top = spec_.value_bits - 1;
    if (ctx.Is(e1_) && !layout_.square) opened.top = mpc::Row(opened.input.b, top);
    for (std::size_t w = 0; layout_.square && w < opened.input.b.Words(); ++w)
      opened.input.b[top][w] = ~opened.input.b[top][w];  // b + 2^(n-1)
    if (ctx.Is(e1_)) {
      opened.input.a.mine = std::move(drawn);
    } else if (shape.width > 0) {
      const std::size_t bytes = ring::PackedBytes(shape.SharedRows() * rows * cols, 1);
      opened.input.a.next =
          mpc::Unpack(ctx.ReceiveBytes(d_, bytes), shape.SharedRows(), rows * cols);
    }
  }
  if (layout_.relu || layout_.square)
    ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) { ShareOpened<W, V>(ctx, mine, opened); });
  return opened;
}

template <Word W, Word V>
void Opening::ShareOpened(Context& ctx, const Matrix<W>& part, Opened& opened) {
  const std::size_t rows = part.shape()[0], cols = part.shape()[1];
  const unsigned n = spec_.value_bits;
  const bool is_signed = !layout_.square || !ctx.Is(d_);
  auto wide = ring::MakeMatrix<V>(rows, cols);
  for (std::size_t i = 0; i < part.size(); ++i) {
    const W from = part.data()[i];
    wide.data()[i] = layout_.whole ? static_cast<V>(from)
                     : is_signed   ? static_cast<V>(ring::Decode(from, n) >> layout_.shift)
                                   : static_cast<V>(ring::Reduce(from, n) >> layout_.shift);
  }
  const auto share = [&](Matrix<V> value, unsigned bits) {
    AnyShare split;  // of `value` at D
    if (ctx.Is(e2_)) {
      split.next = AnyMatrix(ctx.Receive<V>(d_, rows, cols, bits), spec_.out_bits);
      return split;
    }
    Matrix<V> drawn = with_e1_->Draw<V>(rows, cols);
    if (ctx.Is(d_)) {
      value -= drawn;
      ctx.Send(e2_, value, bits);  // masked by the key of D and E1
      split.mine = AnyMatrix(std::move(value), spec_.out_bits);
      split.next = AnyMatrix(std::move(drawn), spec_.out_bits);
    } else {
      split.mine = AnyMatrix(std::move(drawn), spec_.out_bits);
    }
    return split;
  };
  opened.x = share(wide, spec_.out_bits);
  if (layout_.wrap_bits > 0) {
    auto top = ring::MakeMatrix<V>(rows, cols);
    for (std::size_t i = 0; i < top.size(); ++i)
      top.data()[i] = static_cast<V>(part.data()[i] >> (spec_.value_bits - 1) & 1);
    opened.wrap = share(top, layout_.wrap_bits);
    if (!ctx.Is(d_)) {
      auto& half = (ctx.Is(e1_) ? opened.wrap.mine : opened.wrap.next).As<V>();
      for (std::size_t i = 0; i < top.size(); ++i)
        half.data()[i] &= static_cast<V>(V{0} - top.data()[i]);  // times b_top
    }
  }
  if (!ctx.Is(d_))
    (ctx.Is(e1_) ? opened.x.next : opened.x.mine) = AnyMatrix(std::move(wide), spec_.out_bits);
}

void Opening::SendWrap(Context& ctx, AnyShare& wrap) {
  ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
    const std::size_t rows = wrap.mine.Empty() ? wrap.next.Rows() : wrap.mine.Rows();
    const std::size_t cols = wrap.mine.Empty() ? wrap.next.Cols() : wrap.mine.Cols();
    AnyMatrix with_e1, with_e2;
    if (with_e1_) with_e1 = AnyMatrix(with_e1_->Draw<V>(rows, cols), spec_.out_bits);
    if (with_e2_) with_e2 = AnyMatrix(with_e2_->Draw<V>(rows, cols), spec_.out_bits);
    if (ctx.Is(d_)) {
      wrap = {std::move(with_e2), std::move(with_e1)};
      return;
    }
    AnyMatrix third = ctx.Is(e1_) ? std::move(wrap.mine) : std::move(wrap.next);
    third.As<V>() -= (ctx.Is(e1_) ? with_e1 : with_e2).template As<V>();
    ctx.Send(ctx.Is(e1_) ? e2_ : e1_, third.As<V>(), layout_.wrap_bits);
    wrap = ctx.Is(e1_) ? AnyShare{std::move(with_e1), std::move(third)}
                       : AnyShare{std::move(third), std::move(with_e2)};
  });
}

void Opening::AddWrap(Context& ctx, AnyShare& wrap, AnyShare& x) const {
  ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
    if (!ctx.Is(d_)) {
      auto& third = (ctx.Is(e1_) ? wrap.next : wrap.mine).As<V>();
      third += ctx.Receive<V>(ctx.Is(e1_) ? e2_ : e1_, third.shape()[0], third.shape()[1],
                              layout_.wrap_bits);
    }
    const auto add = [&](AnyMatrix& half, const AnyMatrix& carry) {
      V* to = half.As<V>().data();
      const Matrix<V>& from = carry.As<V>();
      for (std::size_t i = 0; i < from.size(); ++i)
        to[i] += static_cast<V>(from.data()[i] << (spec_.value_bits - layout_.shift));
    };
    add(x.mine, wrap.mine);
    add(x.next, wrap.next);
  });
}

}  // namespace tercet::protocols::aby3
